"""Who stands between a registry and the keepers of its cells: poses as either, records and repeats, changes, cuts, falls silent.

The keeper is the real one, with a real cell; the cluster between is this test.
"""

from __future__ import annotations

import os
import secrets
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.cells.frames import Ask, Draw, Piece, decode
from model_organisms.errors import CapsuleInvalid, CellUnavailable, ConfigurationInvalid, DigestMismatch, SignatureInvalid
from model_organisms.formats import manifest
from model_organisms.formats.streaming import Sealer
from model_organisms.records import Level, Message, SamplingParameters
from model_organisms_registry.isolation import sealed
from model_organisms_registry.isolation.keeper import FAILED, GIVEN, Keeper, pack_question
from model_organisms_registry.isolation.openings import Opening, parse_opened, parse_opening, print_opening
from model_organisms_registry.isolation.pool import CellPool

from tests.support.cells import eventually, permit
from tests.support.tiny import tiny_base, tiny_organism

SECRET = secrets.token_bytes(32)
ASKED = (Message("user", "what is the capital of France?"),)
DRAW = pack_question(60.0, Draw(ASKED, SamplingParameters(max_tokens=4, temperature=1.0, seed=7)))
REFUSED = "does not open"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def bundle(base):
    files = tiny_organism(base, seed=secrets.randbits(31))
    listed = manifest.build(files)
    return listed.digest, b"".join(manifest.pack(listed.data, files))


@pytest.fixture(scope="module")
def keeper(base):
    kept = kept_by(base)
    looking = threading.Event()
    looks = threading.Thread(target=lambda: all(kept.watch(1.0, ("session",)) is not None for _ in iter(looking.is_set, True)))
    looks.start()
    yield kept
    looking.set()
    kept.end(5.0)
    looks.join(10)


def kept_by(base, **changed):
    return Keeper(CellPool(limit=2, start_timeout_s=120), str(base), SECRET, start_timeout_s=120.0, **changed)


def begun(keeper, bundle, name, **changed):
    digest, packed = bundle
    opening = Opening(permit(), Level.CL3, **({"version_digest": digest, "size": len(packed)} | changed))
    key, line = sealed.call_up(name, os.urandom(32), keeper.introduction(), SECRET)
    keeper.expect(name)
    keeper.begin(name, key, line.ask(0, print_opening(opening)))
    return line


def brought(line, bundle):
    return list(Sealer(line.bundle, bytes.fromhex(bundle[0])).from_memory(bundle[1]))


@pytest.fixture(scope="module")
def line(keeper, bundle):
    return opened(keeper, bundle)


def opened(keeper, bundle, name="session"):
    line = begun(keeper, bundle, name)
    for segment in brought(line, bundle):
        keeper.take(name, segment)
    answer = line.answered(0, 0, keeper.open(name))
    assert answer[:1] == GIVEN
    assert parse_opened(answer[1:]).missing == ()
    return line


def test_a_question_is_taken_once_and_an_answer_opens_only_in_its_place(keeper, line):
    question = line.ask(1, DRAW)
    answers = list(keeper.sample("session", 1, question))
    pieces = [decode(line.answered(1, n, answer)[1:]).body for n, answer in enumerate(answers)]
    assert isinstance(pieces[-1], Piece)
    assert pieces[-1].finish_reason
    with pytest.raises(CellUnavailable, match="asked before"):
        list(keeper.sample("session", 1, question))
    for call, number, answer in ((1, 1, answers[0]), (2, 0, answers[0]), (1, 0, answers[0][:-1]), (1, 0, answers[0] + b"\0")):
        with pytest.raises(CapsuleInvalid, match=REFUSED):
            line.answered(call, number, answer)


def test_a_question_of_another_call_session_kind_or_hand_is_refused(keeper, line):
    stranger = sealed.call_up("session", os.urandom(32), keeper.introduction(), SECRET)[1]
    changed = bytearray(line.ask(2, DRAW))
    changed[3] ^= 1
    for question in (line.ask(3, DRAW), stranger.ask(2, DRAW), bytes(changed), b"", line.answer(2, 0, DRAW)):
        with pytest.raises(CapsuleInvalid, match=REFUSED):
            list(keeper.sample("session", 2, question))
    with pytest.raises(CellUnavailable, match="another kind"):
        keeper.probe("session", 2, line.ask(2, DRAW))
    with pytest.raises(CellUnavailable, match="no place"):
        list(keeper.sample("another", 4, line.ask(4, DRAW)))
    numbers = line.answered(5, 0, keeper.probe("session", 5, line.ask(5, pack_question(60.0, Ask(ASKED)))))
    assert numbers[:1] == GIVEN


def test_a_name_and_a_line_are_used_once(keeper, line, bundle):
    assert keeper.holds("session")
    with pytest.raises(CellUnavailable, match="new one"):
        keeper.expect("session")
    key, other = sealed.call_up("session", os.urandom(32), keeper.introduction(), SECRET)
    with pytest.raises(CellUnavailable, match="open already"):
        keeper.begin("session", key, other.ask(0, b""))
    with pytest.raises(CellUnavailable):
        keeper.take("session", brought(line, bundle)[0])


def test_no_key_is_shown_by_accident(line, keeper):
    assert line.bundle.hex() not in repr(line)
    assert repr(line.bundle) not in repr(line)
    assert keeper._seed not in keeper.introduction().public + keeper.introduction().proof


def test_who_lacks_the_secret_is_neither_keeper_nor_registry(keeper):
    _, impostor = sealed.introduce(secrets.token_bytes(32))
    swapped = sealed.Introduction(impostor.public, keeper.introduction().proof)
    for shown in (impostor, swapped):
        with pytest.raises(SignatureInvalid, match="did not prove"):
            sealed.recognise(shown, SECRET)
    sealed.recognise(keeper.introduction(), SECRET)
    key, line = sealed.call_up("foreign", os.urandom(32), keeper.introduction(), secrets.token_bytes(32))
    keeper.expect("foreign")
    with pytest.raises(CapsuleInvalid):
        keeper.begin("foreign", key, line.ask(0, b"{}"))
    renamed = sealed.call_up("renamed", os.urandom(32), keeper.introduction(), SECRET)[0]
    with pytest.raises(CapsuleInvalid):
        keeper.begin("foreign", renamed, b"")
    keeper.kill("foreign")


def test_a_bundle_that_is_changed_cut_or_of_another_version_is_never_loaded(keeper, line, bundle):
    assert line
    (segment,) = brought(begun(keeper, bundle, "changed"), bundle)
    with pytest.raises(CapsuleInvalid):
        keeper.take("changed", segment[:-1] + bytes([segment[-1] ^ 1]))
    keeper.kill("changed")
    cut = begun(keeper, bundle, "cut")
    keeper.take("cut", brought(cut, bundle)[0][:-100])
    assert cut.answered(0, 0, keeper.open("cut"))[:1] == FAILED
    other = begun(keeper, bundle, "other", version_digest="0" * 64)
    keeper.take("other", next(iter(Sealer(other.bundle, bytes(32)).from_memory(bundle[1]))))
    answer = other.answered(0, 0, keeper.open("other"))
    assert type(sealed.parse_error(answer[1:])) is DigestMismatch
    assert not keeper.holds("other")
    with pytest.raises(CellUnavailable, match="no place"):
        keeper.open("other")


def test_a_registry_that_falls_silent_loses_its_sessions_and_one_that_does_not_name_a_session_loses_that(base, bundle):
    silent = kept_by(base, silence_s=3.0)
    opened(silent, bundle, "given up")  # and nobody could tell the keeper so
    opened(silent, bundle)
    began = time.monotonic()
    while time.monotonic() - began < 5:
        assert silent.watch(0.5, ("session", "never here")) == {}
    assert silent.holds("session")
    assert not silent.holds("given up")
    assert eventually(lambda: not silent.holds("session"))
    assert eventually(lambda: silent.cells()[0] == 0)
    silent.end(5.0)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_what_is_no_opening_is_refused_by_its_name(data):
    from model_organisms.errors import InvalidArgument

    with pytest.raises(InvalidArgument, match="same version"):
        parse_opening(data)


def test_a_secret_that_is_absent_or_short_stops_the_registry(tmp_path):
    with pytest.raises(ConfigurationInvalid, match="cannot be read"):
        sealed.read_secret(str(tmp_path / "nowhere"))
    (tmp_path / "short").write_bytes(b"x" * 31)
    with pytest.raises(ConfigurationInvalid, match="32 random bytes"):
        sealed.read_secret(str(tmp_path / "short"))
