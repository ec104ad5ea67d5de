"""An identity file under a passphrase: it opens with that and with nothing else, and no failure loses it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.client.client import connect, login
from model_organisms.client.locking import Lock

from tests.support.refusals import refused
from tests.support.terminal import typed

WORDS, OTHER = "four words of ours", "four words of theirs"


def certificate():
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    times = built.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
    return times.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def lock():
    return Lock.of(WORDS, cost=14)


@pytest.fixture
def held(lock):
    fresh = keys.FreshKeys.generate()
    return keys.Identity(
        user="users/ada",
        registry="registry.test:7600",
        authority=b"authority",
        certificate=certificate(),
        certificate_expires=datetime(2026, 5, 4, tzinfo=UTC),
        tls_key=fresh.tls_pem,
        identity_seed=fresh.signer.private_bytes_raw(),
        sealing_seed=fresh.sealing_seed,
        sealing_key=fresh.sealing_key,
        origin="registry.test",
        ledger_key="vkey",
        release_key=bytes(32),
        lock=lock,
    )


@pytest.fixture
def path(tmp_path, held):
    keys.write(held, tmp_path / "ada.json")
    return tmp_path / "ada.json"


def test_a_locked_file_opens_with_its_passphrase_and_shows_nothing_without(path, held):
    kept = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    document = json.loads(kept)
    assert set(document) == {"format", "kdf", "cost", "salt", "sealed"}
    for secret in (b"users/ada", b"registry.test", b"PRIVATE"):
        assert secret not in kept
    assert keys.read(path, WORDS) == held
    assert keys.read(path, lambda: WORDS) == held
    assert keys.read(path, WORDS).lock == held.lock
    assert path.read_bytes() == kept


@pytest.mark.parametrize("passphrase", [OTHER, WORDS + " ", WORDS.upper(), "short", None, lambda: OTHER, lambda: ""])
def test_another_passphrase_or_none_is_a_typed_error_and_the_file_stays(path, monkeypatch, passphrase):
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    kept = path.read_bytes()
    with refused(errors.PassphraseRefused, "passphrase"):
        keys.read(path, passphrase)
    assert path.read_bytes() == kept


def test_programs_have_it_in_the_environment(path, held, monkeypatch):
    monkeypatch.setenv(keys.PASSPHRASE, WORDS)
    assert keys.read(path) == held
    monkeypatch.setenv(keys.PASSPHRASE, OTHER)
    with pytest.raises(errors.PassphraseRefused):
        keys.read(path)
    assert keys.read(path, WORDS) == held  # what is passed goes before


def test_one_passphrase_however_it_is_typed(tmp_path, held):
    composed, decomposed = "ein Wörtchen für drei", "ein Wo\u0308rtchen fu\u0308r drei"
    keys.write(replace(held, lock=Lock.of(composed)), tmp_path / "a.json")
    assert keys.read(tmp_path / "a.json", decomposed) == held


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"sealed": d["sealed"][:-8] + "AAAA" + d["sealed"][-4:]},
        lambda d: d | {"salt": "A" * 22 + "=="},
        lambda d: d | {"cost": d["cost"] + 1},
    ],
)
def test_a_changed_file_opens_no_more(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with refused(errors.PassphraseRefused, "or the file was changed"):
        keys.read(path, WORDS)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"cost": 40},
        lambda d: d | {"cost": 1},
        lambda d: d | {"cost": "16"},
        lambda d: d | {"kdf": "md5"},
        lambda d: d | {"also": 1},
        lambda d: {"format": d["format"]},
        lambda d: d | {"sealed": "%"},
        lambda d: d | {"salt": 7},
    ],
)
def test_a_file_that_is_locked_in_no_way_we_know_is_refused_at_once(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with refused(errors.ConfigurationInvalid, "identity"):
        keys.read(path, WORDS)


def test_each_writing_has_a_nonce_of_its_own(path, held):
    first = json.loads(path.read_text())["sealed"]
    keys.write(held, path)
    second = json.loads(path.read_text())["sealed"]
    assert first[:16] != second[:16]


def test_a_hopeless_passphrase_locks_nothing():
    with refused(errors.InvalidArgument, "at least 8"):
        Lock.of("1234567")
    assert WORDS not in repr(Lock.of(WORDS))


def test_a_failed_writing_leaves_the_file(path, held, monkeypatch):
    kept = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keys.write(replace(held, lock=None), path)
    assert path.read_bytes() == kept


def test_a_person_logs_in_under_a_passphrase_and_changes_it(world, tmp_path, monkeypatch):
    at, ticket = tmp_path / "lock.json", world.admin.users.invite("locked", organisation="lab", roles=["researcher"]).ticket
    identity = ("--identity", at)
    monkeypatch.setenv("MODEL_ORGANISMS_NEW_PASSPHRASE", WORDS)
    assert typed(*identity, "login", ticket, "--passphrase")[0] == 0
    status, _, err = typed(*identity, "whoami")
    assert (status, "is locked" in err) == (1, True)
    monkeypatch.setenv(keys.PASSPHRASE, WORDS)
    assert typed(*identity, "whoami")[0] == 0
    monkeypatch.setenv("MODEL_ORGANISMS_NEW_PASSPHRASE", OTHER)
    status, out, _ = typed(*identity, "keys", "passphrase", "--json")
    assert (status, json.loads(out)["locked"]) == (0, True)
    assert typed(*identity, "whoami")[0] == 1
    with connect(at, passphrase=OTHER) as client:
        client._channel.renew()
    monkeypatch.setenv(keys.PASSPHRASE, OTHER)
    assert json.loads(typed(*identity, "keys", "rotate", "--json")[1])["locked"] is True
    assert json.loads(typed(*identity, "keys", "passphrase", "--remove", "--json")[1])["locked"] is False
    monkeypatch.delenv(keys.PASSPHRASE)
    assert typed(*identity, "whoami")[0] == 0


def test_a_file_can_be_locked_from_the_first(world, tmp_path):
    ticket = world.admin.users.invite("locked-first", organisation="lab", roles=["researcher"]).ticket
    with login(ticket, tmp_path / "a.json", passphrase=WORDS) as client:
        assert client.users.me().name == "users/locked-first"
    with refused(errors.PassphraseRefused, "is locked"):
        connect(tmp_path / "a.json")
