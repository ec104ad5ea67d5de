"""Notes, verifier keys, checkpoints and receipts that were written by somebody who wants a lenient reader.

What `tests/formats` plays already is not played again. An attack is a name and the bytes; a reader that takes them is the hole.
"""

import base64
import dataclasses

import pytest
from model_organisms.errors import ConfigurationInvalid, ReceiptInvalid, SignatureInvalid
from model_organisms.formats import checkpoint, merkle, note, receipt, tiles
from model_organisms.formats.note import COSIGNATURE, Note, SignatureLine, SigningKey
from model_organisms.records import Receipt

ORIGIN = "ledger.example.org"
KEY = SigningKey(ORIGIN, bytes(range(32)))
WITNESS = SigningKey("witness.example.org", bytes(range(1, 33)), COSIGNATURE)
THEIRS = SigningKey(ORIGIN, bytes(range(2, 34)))
ROOT = bytes(range(32))
TEXT = checkpoint.text(ORIGIN, 300, ROOT)
LINE = note.sign(TEXT, KEY).lines[0]
NOTE = bytes(Note(TEXT, (LINE,)))
BODY, SIGNATURE = str(LINE).rsplit(" ", 1)


def written(*lines, text=TEXT):
    """A note with these lines, whatever they are."""
    return text.encode() + b"\n" + b"".join(f"{line}\n".encode() for line in lines)


def by(key=KEY, signature=LINE.signature, *, name=None, key_id=None):
    return str(SignatureLine(name or key.name, key_id or key.verifier.key_id, signature))


def opened(data):
    return checkpoint.verified(data, KEY.verifier, origin=ORIGIN)


def test_the_untouched_checkpoint_opens():
    assert opened(NOTE).size == 300
    assert opened(written(BODY + " " + SIGNATURE)).root == ROOT


NOTES = {
    "signature-in-urlsafe-base64": written(BODY + " " + SIGNATURE.replace("/", "_").replace("+", "-")),
    "signature-with-a-stray-bit": written(BODY + " " + SIGNATURE[:-2] + chr(ord(SIGNATURE[-2]) + 1) + "="),
    "signature-without-padding": written(BODY + " " + SIGNATURE.rstrip("=")),
    "signature-with-more-padding": written(BODY + " " + SIGNATURE + "="),
    "signature-in-two-runs-of-base64": written(f"{BODY} {base64.b64encode(LINE.key_id[:1]).decode()}{SIGNATURE}"),
    "signature-with-a-space-inside": written(f"{BODY} {SIGNATURE[:20]} {SIGNATURE[20:]}"),
    "signature-a-byte-short": written(by(signature=LINE.signature[:-1])),
    "signature-a-byte-long": written(by(signature=LINE.signature + b"\0")),
    "signature-of-nothing": written(by(signature=b"")),
    "signature-of-zeros": written(by(signature=bytes(64))),
    "signature-of-another-text": written(str(note.sign(TEXT + "more\n", KEY).lines[0])),
    "signature-by-a-key-of-our-name": written(str(note.sign(TEXT, THEIRS).lines[0])),
    "signature-by-a-stranger-under-our-key-id": written(by(signature=THEIRS.sign(TEXT.encode()))),
    "signature-of-ours-under-a-strangers-id": written(by(key_id=THEIRS.verifier.key_id)),
    "signature-of-ours-under-a-name-that-looks-alike": written(by(name="l\u0435dger.example.org")),
    "signature-of-ours-under-a-longer-name": written(by(name=ORIGIN + "\u200b")),
    "signature-mistyped-as-a-cosignature": written(by(dataclasses.replace(KEY, kind=COSIGNATURE))),
    "signature-twice-the-second-bad": written(LINE, by(signature=bytes(64))),
    "signature-twice-the-first-bad": written(by(signature=bytes(64)), LINE),
    "signature-bad-behind-sixteen-strangers": written(
        LINE, *(SignatureLine(f"w{n}.example", bytes(4), bytes(64)) for n in range(16)), by(signature=bytes(64))
    ),
    "signatures-of-strangers-only": written(*(SignatureLine(f"w{n}.example", bytes(4), bytes(64)) for n in range(17))),
    "signatures-past-the-limit": written(*[LINE] * (note.MAX_SIGNATURES + 1)),
    "signatures-none": TEXT.encode() + b"\n",
    "dash-en": written(str(LINE).replace("\u2014", "\u2013")),
    "dash-twice": written(str(LINE).replace("\u2014", "\u2014\u2014")),
    "space-no-break": written(str(LINE).replace(" ", "\u00a0", 1)),
    "space-before-the-dash": written(" " + str(LINE)),
    "space-at-the-end": written(str(LINE) + " "),
    "name-missing": written(f"\u2014  {SIGNATURE}"),
    "name-with-a-plus": written(by(name="ledger+example")),
    "split-at-an-earlier-empty-line": written(LINE, text=TEXT + "\nmore\n"),
    "split-a-note-inside-a-note": NOTE + b"\n" + str(LINE).encode() + b"\n",
    "split-signature-moved-into-the-text": TEXT.encode() + str(LINE).encode() + b"\n\n" + str(LINE).encode() + b"\n",
    "split-an-empty-line-among-signatures": written(LINE, "", LINE),
    "split-an-empty-line-at-the-end": NOTE + b"\n",
    "split-no-empty-line": TEXT.encode() + str(LINE).encode() + b"\n",
    "last-line-cut-off": NOTE[:-1],
    "line-ends-of-windows": NOTE.replace(b"\n", b"\r\n"),
    "control-nul-in-the-origin": NOTE.replace(b"ledger.", b"ledger\0", 1),
    "control-escape-in-the-origin": NOTE.replace(b"ledger.", b"\x1b[31m.", 1),
    "control-tab-in-the-size": NOTE.replace(b"\n300\n", b"\n300\t\n"),
    "control-vertical-tab-in-a-name": written(by(name="ledger\x0bexample")),
    "text-in-utf-16": NOTE.decode().encode("utf-16"),
    "text-with-an-overlong-slash": NOTE.replace(b"ledger.", b"ledger\xc0\xaf", 1),
    "text-with-a-byte-order-mark": b"\xef\xbb\xbf" + NOTE,
    "oversize": written(LINE, text=TEXT + "x" * note.MAX_NOTE_SIZE + "\n"),
    "oversize-by-a-strangers-signature": written(LINE, SignatureLine("w.example", bytes(4), bytes(note.MAX_NOTE_SIZE))),
}


@pytest.mark.parametrize("data", NOTES.values(), ids=NOTES)
def test_a_note_is_refused_with(data):
    with pytest.raises(SignatureInvalid):
        opened(data)


def test_seventeen_and_more_signatures_by_strangers_do_no_harm():
    strangers = [SignatureLine(f"w{n}.example", bytes(4), bytes(64)) for n in range(note.MAX_SIGNATURES - 1)]
    assert opened(written(*strangers, LINE)).size == 300
    assert opened(written(LINE, *strangers[:16])).size == 300


HEADS = {
    "size-with-a-leading-zero": f"{ORIGIN}\n00\n{note.encode64(merkle.EMPTY_ROOT)}\n",
    "size-minus-zero": f"{ORIGIN}\n-0\n{note.encode64(merkle.EMPTY_ROOT)}\n",
    "size-in-hexadecimal": f"{ORIGIN}\n0x12c\n{note.encode64(ROOT)}\n",
    "size-with-an-exponent": f"{ORIGIN}\n3e2\n{note.encode64(ROOT)}\n",
    "size-in-full-width-digits": f"{ORIGIN}\n\uff13\uff10\uff10\n{note.encode64(ROOT)}\n",
    "size-in-superscript": f"{ORIGIN}\n3\u00b2\n{note.encode64(ROOT)}\n",
    "size-with-a-space-behind": f"{ORIGIN}\n300 \n{note.encode64(ROOT)}\n",
    "size-of-twenty-digits": f"{ORIGIN}\n10000000000000000000\n{note.encode64(ROOT)}\n",
    "size-beyond-64-bits-wrapping-to-300": f"{ORIGIN}\n{2**64 + 300}\n{note.encode64(ROOT)}\n",
    "root-of-33-bytes": f"{ORIGIN}\n300\n{note.encode64(ROOT + b'!')}\n",
    "root-in-hexadecimal": f"{ORIGIN}\n300\n{ROOT.hex()}\n",
    "root-missing": f"{ORIGIN}\n300\n\n",
    "root-and-size-exchanged": f"{ORIGIN}\n{note.encode64(ROOT)}\n300\n",
    "origin-of-another-ledger": f"ledger.example.com\n300\n{note.encode64(ROOT)}\n",
    "origin-with-a-space-behind": f"{ORIGIN} \n300\n{note.encode64(ROOT)}\n",
    "origin-in-capitals": f"{ORIGIN.upper()}\n300\n{note.encode64(ROOT)}\n",
    "extension-that-is-empty": f"{TEXT}\nmore\n",
    "no-entries-under-a-root-of-its-own": f"{ORIGIN}\n0\n{note.encode64(ROOT)}\n",
}


@pytest.mark.parametrize("text", HEADS.values(), ids=HEADS)
def test_a_checkpoint_is_refused_though_signed_with(text):
    with pytest.raises(SignatureInvalid):
        opened(bytes(note.sign(text, KEY)))


def cosigned(line, text=TEXT):
    return bytes(Note(text, (note.sign(text, KEY).lines[0], line)))


TIMED = note.parse(checkpoint.cosigned(NOTE, WITNESS, time=7)).lines[1]
LATE = (1 << 63).to_bytes(8, "big")
COSIGNATURES = {
    "time-moved": (8).to_bytes(8, "big") + TIMED.signature[8:],
    "time-beyond-63-bits": LATE + WITNESS.sign(f"cosignature/v1\ntime {1 << 63}\n{TEXT}".encode()),
    "time-left-out": TIMED.signature[8:],
    "time-only": TIMED.signature[:8],
    "the-bare-text-signed": TIMED.signature[:8] + WITNESS.sign(TEXT.encode()),
    "the-logs-own-signature": TIMED.signature[:8] + LINE.signature,
    "another-head-signed": TIMED.signature[:8] + WITNESS.sign(b"cosignature/v1\ntime 7\n" + TEXT.replace("300", "301").encode()),
    "another-version-of-cosignatures": TIMED.signature[:8] + WITNESS.sign(b"cosignature/v2\ntime 7\n" + TEXT.encode()),
}


@pytest.mark.parametrize("signature", COSIGNATURES.values(), ids=COSIGNATURES)
def test_a_cosignature_is_refused_with(signature):
    line = SignatureLine(WITNESS.name, WITNESS.verifier.key_id, signature)
    with pytest.raises(SignatureInvalid):
        checkpoint.cosignatures(cosigned(line), [WITNESS.verifier])


def test_one_witness_that_cosigns_twice_counts_once():
    twice = checkpoint.cosigned(checkpoint.cosigned(NOTE, WITNESS, time=7), WITNESS, time=9)
    assert checkpoint.cosignatures(twice, [WITNESS.verifier, WITNESS.verifier]) == {WITNESS.name: 9}


VKEY = str(KEY.verifier)
NAME, ID, MATERIAL = VKEY.split("+", 2)
VKEYS = {
    "key-id-in-capitals": f"{NAME}+{ID.upper()}+{MATERIAL}",
    "key-id-of-another-name": f"ledger.example.com+{ID}+{MATERIAL}",
    "key-id-with-a-leading-zero": f"{NAME}+0{ID}+{MATERIAL}",
    "key-id-missing": f"{NAME}++{MATERIAL}",
    "material-with-a-stray-bit": f"{NAME}+{ID}+{MATERIAL}"[:-2] + chr(ord(MATERIAL[-2]) + 1) + "=",
    "material-in-urlsafe-base64": str(dataclasses.replace(KEY.verifier, public=b"\xff" * 32)).replace("/", "_"),
    "material-a-byte-short": f"{NAME}+{ID}+{note.encode64(bytes([1]) + KEY.verifier.public[:-1])}",
    "material-of-an-unknown-type": str(dataclasses.replace(KEY.verifier, kind=2)),
    "material-of-type-zero": str(dataclasses.replace(KEY.verifier, kind=0)),
    "type-changed-under-the-old-id": f"{NAME}+{ID}+{note.encode64(bytes([4]) + KEY.verifier.public)}",
    "a-signing-key": KEY.secret_text(),
    "a-line-end-behind": VKEY + "\n",
    "a-second-key-behind": VKEY + " " + VKEY,
    "a-line-end-in-the-name": VKEY.replace("ledger.", "ledger\n"),
}


@pytest.mark.parametrize("text", VKEYS.values(), ids=VKEYS)
def test_a_verifier_key_is_refused_with(text):
    with pytest.raises(ConfigurationInvalid):
        note.parse_vkey(text)


ENTRIES = [f"entry {at}".encode() for at in range(5)]
LEAVES = [merkle.leaf_hash(one) for one in ENTRIES]


def proved(index, size=5):
    head = checkpoint.signed(ORIGIN, size, merkle.root_of(LEAVES[:size]), KEY)
    proof = merkle.inclusion(index, size, lambda level, at: merkle.root_of(LEAVES[at << level : (at + 1) << level]))
    return Receipt(index, ENTRIES[index], proof, head.note)


GOOD = receipt.text(proved(2))
EXTRA = b"extra " + base64.b64encode(ENTRIES[2])
RECEIPTS = {
    "index-with-a-leading-zero": GOOD.replace(b"index 2", b"index 02"),
    "index-with-a-plus": GOOD.replace(b"index 2", b"index +2"),
    "index-minus-zero": receipt.text(proved(0)).replace(b"index 0", b"index -0"),
    "index-with-a-space-behind": GOOD.replace(b"index 2", b"index 2 "),
    "index-in-other-digits": GOOD.replace(b"index 2", "index \u0662".encode()),
    "index-beyond-64-bits": GOOD.replace(b"index 2", b"index %d" % (2**64 + 2)),
    "index-missing": GOOD.replace(b"index 2\n", b""),
    "index-twice": GOOD.replace(b"index 2\n", b"index 2\nindex 2\n"),
    "index-of-the-size": GOOD.replace(b"index 2", b"index 5"),
    "entry-in-urlsafe-base64": GOOD.replace(EXTRA, b"extra " + base64.urlsafe_b64encode(b"\xff\xff\xfe")),
    "entry-without-padding": GOOD.replace(EXTRA, EXTRA.rstrip(b"=")),
    "entry-with-a-stray-bit": GOOD.replace(EXTRA, EXTRA[:-2] + b"B="),
    "entry-twice": GOOD.replace(EXTRA, EXTRA + b"\n" + EXTRA),
    "entry-behind-the-index": GOOD.replace(EXTRA + b"\nindex 2", b"index 2\n" + EXTRA),
    "entry-of-a-neighbour": GOOD.replace(EXTRA, b"extra " + base64.b64encode(ENTRIES[3])),
    "entry-empty": GOOD.replace(EXTRA, b"extra "),
    "entry-longer-than-a-ledger-holds": GOOD.replace(EXTRA, b"extra " + base64.b64encode(bytes(tiles.MAX_ENTRY_SIZE + 1))),
    "header-of-another-version": GOOD.replace(b"@v1", b"@v2", 1),
    "header-with-a-space-behind": GOOD.replace(b"@v1", b"@v1 ", 1),
    "header-in-capitals": GOOD.replace(b"c2sp.org", b"C2SP.ORG", 1),
    "header-behind-an-empty-line": b"\n" + GOOD,
    "line-ends-of-windows": GOOD.replace(b"\n", b"\r\n"),
    "proof-with-an-empty-line-inside": receipt.text(proved(0)).replace(
        base64.b64encode(LEAVES[1]), base64.b64encode(LEAVES[1]) + b"\n"
    ),
    "proof-hash-of-33-bytes": GOOD.replace(base64.b64encode(LEAVES[3]), base64.b64encode(LEAVES[3] + b"!")),
    "proof-hash-in-hexadecimal": GOOD.replace(base64.b64encode(LEAVES[3]), LEAVES[3].hex().encode()),
    "checkpoint-missing": GOOD[: GOOD.index(b"\n\n") + 2],
    "checkpoint-of-an-older-tree": receipt.text(dataclasses.replace(proved(2), checkpoint=proved(2, 4).checkpoint)),
    "checkpoint-with-bytes-behind": GOOD + b"more\n",
    "checkpoint-by-a-key-of-our-name": receipt.text(
        dataclasses.replace(proved(2), checkpoint=checkpoint.signed(ORIGIN, 5, merkle.root_of(LEAVES), THEIRS).note)
    ),
}


@pytest.mark.parametrize("data", RECEIPTS.values(), ids=RECEIPTS)
def test_a_receipt_is_refused_with(data):
    assert data != GOOD
    with pytest.raises(ReceiptInvalid):
        receipt.verify(receipt.parse(data), VKEY, origin=ORIGIN)


def test_the_untouched_receipt_verifies():
    assert receipt.verify(receipt.parse(GOOD), VKEY, origin=ORIGIN).size == 5
