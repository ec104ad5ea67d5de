"""Signed notes and their keys: vectors of others, round trips, and notes that look almost right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ConfigurationInvalid, SignatureInvalid
from model_organisms.formats import note
from model_organisms.formats.note import COSIGNATURE, ED25519, Note, SignatureLine, SigningKey

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SIGNED = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
KEY = SigningKey("ledger.example.org", bytes(range(32)))
OTHER = SigningKey("other.example.org", bytes(range(1, 33)))
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z"), exclude_characters="+"), min_size=1, max_size=30).filter(
    lambda name: not any(letter.isspace() for letter in name)
)
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=200).map(
    lambda text: text + "\n"
)


def test_the_example_of_the_specification_opens():
    key = note.parse_vkey(VKEY)
    assert str(key) == VKEY
    assert note.verify(SIGNED, key).text == "This is an example message.\n"
    assert bytes(note.parse(SIGNED)) == SIGNED


@pytest.mark.parametrize("at", range(0, len(SIGNED), 3))
def test_every_changed_byte_of_the_example_is_refused(at):
    changed = bytearray(SIGNED)
    changed[at] ^= 1
    with pytest.raises(SignatureInvalid):
        note.verify(bytes(changed), note.parse_vkey(VKEY))


@given(TEXTS, NAMES, st.binary(min_size=32, max_size=32))
def test_what_is_signed_opens_and_reads_back(text, name, seed):
    key = SigningKey(name, seed)
    data = bytes(note.sign(text, key))
    assert bytes(note.parse(data)) == data
    assert note.verify(data, key.verifier).text == text
    assert note.parse_vkey(str(key.verifier)) == key.verifier
    assert note.parse_skey(key.secret_text()) == key
    with pytest.raises(SignatureInvalid):
        note.verify(data, OTHER.verifier)
    with pytest.raises(SignatureInvalid):
        note.verify(data.replace(text.encode(), b"other" + text.encode(), 1), key.verifier)


@given(st.binary(max_size=400))
def test_whatever_bytes_come_a_note_reads_back_or_is_refused(data):
    try:
        parsed = note.parse(data)
    except SignatureInvalid:
        return
    assert bytes(parsed) == data


@given(st.integers(0, len(SIGNED) - 1), st.binary(max_size=3))
def test_an_edited_note_never_reads_as_another(at, middle):
    edited = SIGNED[:at] + middle + SIGNED[at + 1 :]
    try:
        opened = note.verify(edited, note.parse_vkey(VKEY))
    except SignatureInvalid:
        return
    assert opened.text == "This is an example message.\n"


LINE = str(note.sign("x\n", KEY).lines[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"x\n\n",
        b"x\n" + LINE.encode() + b"\n",
        b"x\n\n" + LINE.encode(),
        b"x\r\n\r\n" + LINE.encode() + b"\n",
        b"x\x00\n\n" + LINE.encode() + b"\n",
        b"x\t\n\n" + LINE.encode() + b"\n",
        b"\xff\n\n" + LINE.encode() + b"\n",
        b"\xed\xa0\x80\n\n" + LINE.encode() + b"\n",
        b"x\n\n" + LINE.replace("— ", "- ").encode() + b"\n",
        b"x\n\n" + LINE.replace(" ", "  ").encode() + b"\n",
        b"x\n\n" + LINE.encode() + b" \n",
        b"x\n\n" + LINE.replace("ledger", "led+ger").encode() + b"\n",
        b"x\n\n" + LINE.replace("ledger.", "ledger\u00a0").encode() + b"\n",
        b"x\n\n" + LINE.replace("=", "").encode() + b"\n",
        b"x\n\n" + LINE.encode() + b"\nplain line\n",
        b"x\n\n\xe2\x80\x94 ledger.example.org AAAAAA==\n",
        b"x\n\n\xe2\x80\x94 ledger.example.org AAAAAAB=\n",
        b"x\n\n" + (LINE.encode() + b"\n") * (note.MAX_SIGNATURES + 1),
        b"x" * note.MAX_NOTE_SIZE + b"\n\n" + LINE.encode() + b"\n",
    ],
)
def test_what_the_specification_forbids_is_refused(data):
    with pytest.raises(SignatureInvalid):
        note.parse(data)


def test_the_last_empty_line_ends_the_text():
    text = "first\n\n— looks like a signature\n\nlast\n"
    assert note.verify(bytes(note.sign(text, KEY)), KEY.verifier).text == text


def test_sixteen_strange_signatures_do_no_harm():
    strange = tuple(SignatureLine(f"witness{at}.example", bytes(4), bytes(5000)) for at in range(16))
    signed = note.sign("x\n", KEY)
    assert note.verify(bytes(Note("x\n", strange + signed.lines)), KEY.verifier, OTHER.verifier).text == "x\n"


def test_a_signature_is_ignored_only_if_name_or_id_are_not_ours():
    ours = note.sign("x\n", KEY).lines[0]
    for strange in (SignatureLine("else", ours.key_id, bytes(64)), SignatureLine(ours.name, bytes(4), bytes(64))):
        assert note.verify(bytes(Note("x\n", (strange, ours))), KEY.verifier).text == "x\n"
        with pytest.raises(SignatureInvalid, match="No known key"):
            note.verify(bytes(Note("x\n", (strange,))), KEY.verifier)


@pytest.mark.parametrize("first", [True, False])
def test_one_bad_signature_of_a_known_key_condemns_the_note(first):
    good, bad = note.sign("x\n", KEY).lines[0], SignatureLine(OTHER.name, OTHER.verifier.key_id, bytes(64))
    lines = (bad, good) if first else (good, bad)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        note.verify(bytes(Note("x\n", lines)), KEY.verifier, OTHER.verifier)


def test_a_cosignature_is_no_signature():
    witness = SigningKey("witness.example", bytes(32), COSIGNATURE)
    line = SignatureLine(witness.name, witness.verifier.key_id, witness.sign(b"x\n"))
    with pytest.raises(SignatureInvalid):
        note.verify(bytes(Note("x\n", (line,))), witness.verifier)
    assert witness.verifier.key_id != SigningKey(witness.name, witness.seed, ED25519).verifier.key_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b+c",
        VKEY.replace("530d903a", "530d903b"),
        VKEY.replace("530d903a", "530D903A"),
        VKEY.replace("530d903a", "530d903"),
        VKEY + "=",
        VKEY[:-4],
        VKEY.replace("+AekyeR", "+AukyeR"),
        VKEY.replace("example.com/foo", "example.com foo"),
        VKEY.replace("example.com/foo", ""),
        "x+" + VKEY,
    ],
)
def test_a_verifier_key_is_whole_or_refused(text):
    with pytest.raises(ConfigurationInvalid):
        note.parse_vkey(text)


def test_a_signing_key_is_whole_or_refused_and_never_shown():
    secret = KEY.secret_text()
    seed = secret.rsplit("+", 1)[1]
    for damaged in (secret[:-4], secret.replace("PRIVATE", "PUBLIC"), secret.replace(KEY.name, "x"), seed, ""):
        with pytest.raises(ConfigurationInvalid) as refused:
            note.parse_skey(damaged)
        assert seed[4:20] not in str(refused.value)
    assert seed not in repr(KEY)
    assert KEY.seed.hex() not in repr(KEY)


def test_new_keys_differ_and_need_a_name():
    assert SigningKey.generate("a").seed != SigningKey.generate("a").seed
    for name in ("", "two words", "a+b", "a\nb", "a\u2003b"):
        with pytest.raises(ConfigurationInvalid):
            SigningKey.generate(name)
