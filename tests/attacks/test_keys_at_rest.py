"""Attacks on the keys that what is stored hangs on, each against every keeper it can be made on: a folder, a token, a vault."""

from __future__ import annotations

import base64
import logging
import time
import traceback
from dataclasses import replace

import pytest
from model_organisms.errors import ConfigurationInvalid, ModelOrganismsError, NotFound, Unavailable, VerificationFailed
from model_organisms_registry.config import Keys
from model_organisms_registry.storage.keyring import open_keyring
from model_organisms_registry.storage.sealed import SealedStore

from tests.support.keepers import PIN, PROVIDERS, kept_by, secret
from tests.support.transit import transit

A, B = "versions/one", "versions/two"
PLAIN = {A: b"the weights of one", B: b"the weights of two"}


@pytest.fixture
def attacked(folder_blobs, provider, tmp_path):
    """Two versions under keys of their own, and who keeps those."""
    sealed = SealedStore(folder_blobs, open_keyring(provider, tmp_path / "kek"))
    for path, plain in PLAIN.items():
        sealed.keys.create(path.replace("/", "-"))
        sealed.put_sealed(path, [plain], key_id=path.replace("/", "-"), aad=path.encode())
    yield sealed
    sealed.keys.close()


def opened(sealed, path=A):
    return bytes(sealed.open_sealed(path, aad=path.encode()).into_memory())[: len(PLAIN[path])]


def forged(sealed, path=A, **changes):
    """Write a key record with something changed, as who may write to the blob store would."""
    record = sealed.record(path + ".key")
    kek, data = changes.get("kek", record.kek), changes.get("data", record.data)
    wrapped = base64.b64encode(data).decode()
    sealed.blobs.replace(path + ".key", f'{{"kek":"{kek}","wrapped":"{wrapped}"}}'.encode())


def test_a_wrapped_key_swapped_between_versions(attacked):
    one, two = (attacked.blobs.get(f"{path}.key") for path in PLAIN)
    attacked.blobs.replace(f"{A}.key", two)
    attacked.blobs.replace(f"{B}.key", one)
    for path in PLAIN:
        with pytest.raises(VerificationFailed):
            opened(attacked, path)


def test_a_wrapped_key_relabelled_as_another_versions(attacked):
    forged(attacked, kek="versions-two")
    with pytest.raises(VerificationFailed):
        opened(attacked)


def test_a_wrapped_key_used_for_another_purpose(attacked):
    attacked.blobs.put("contents/secret.key", attacked.blobs.get(f"{A}.key"))
    attacked.blobs.put("contents/secret", attacked.blobs.get(A))
    with pytest.raises(VerificationFailed):
        attacked.open_sealed("contents/secret", aad=A.encode())


def test_a_wrapped_key_whose_bits_are_flipped(attacked):
    data = attacked.record(f"{A}.key").data
    for at in (0, 1, len(data) // 2, len(data) - 1):
        forged(attacked, data=data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        with pytest.raises(VerificationFailed):
            opened(attacked)
    forged(attacked, data=data)
    assert opened(attacked) == PLAIN[A]


@pytest.mark.parametrize("cut", [0, 1, 5, 13, 29, -1])
def test_a_wrapped_key_that_is_truncated(attacked, cut):
    forged(attacked, data=attacked.record(f"{A}.key").data[:cut])
    with pytest.raises(VerificationFailed):
        opened(attacked)


def test_a_wrapped_key_that_claims_to_be_of_every_other_keeper(attacked):
    data = attacked.record(f"{A}.key").data
    for kind in (b"\0", b"\x01", b"\x02", b"\x03", b"\x04", b"\xff"):
        forged(attacked, data=kind + data[1:])
        if kind != data[:1]:
            with pytest.raises(VerificationFailed):
                opened(attacked)


@pytest.mark.parametrize(
    "kek", ["../kek", "versions-one/../two", "versions-one.0", "versions-one.01", "a\\u0000b", "", "versions-one.2"]
)
def test_a_key_record_that_names_a_key_that_is_none(attacked, kek):
    forged(attacked, kek=kek)
    with pytest.raises((VerificationFailed, NotFound)):
        opened(attacked)


def test_a_key_record_that_asks_for_the_marking_secrets_key(attacked):
    """Whoever may write records cannot make one key unwrap what another wrapped."""
    attacked.keys.create("marking")
    attacked.put_sealed("marking/secret", [b"m" * 64], key_id="marking", aad=b"marking")
    attacked.blobs.replace(f"{A}.key", attacked.blobs.get("marking/secret.key"))
    with pytest.raises(VerificationFailed):
        opened(attacked)


def test_a_restored_backup_after_a_destruction(attacked, provider, tmp_path):
    copies = {path: attacked.blobs.get(path) for path in attacked.blobs.list()}
    attacked.keys.destroy("versions-one")
    for path, copied in copies.items():
        attacked.blobs.replace(path, copied)
    again = SealedStore(attacked.blobs, open_keyring(provider, tmp_path / "kek"))
    with pytest.raises(NotFound, match="destroyed"):
        opened(again)
    assert opened(again, B) == PLAIN[B]
    again.keys.close()


def test_a_key_made_anew_under_the_id_of_a_destroyed_one(attacked):
    attacked.keys.destroy("versions-one")
    with pytest.raises(ModelOrganismsError, match="not made again"):
        attacked.keys.create("versions-one")
    with pytest.raises(NotFound, match="destroyed"):
        attacked.put_sealed("versions/again", [b"x"], key_id="versions-one", aad=b"")


@pytest.mark.parametrize("mode", [0o750, 0o705])
def test_a_key_folder_open_to_others(folder_blobs, tmp_path, mode):
    sealed = SealedStore(folder_blobs, open_keyring(Keys(), tmp_path / "kek"))
    sealed.keys.create("one")
    (tmp_path / "kek").chmod(mode)
    with pytest.raises(ConfigurationInvalid, match="open to others"):
        open_keyring(Keys(), tmp_path / "kek")


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_file_open_to_others(tmp_path, mode):
    ring = open_keyring(Keys(), tmp_path / "kek")
    ring.create("one")
    (tmp_path / "kek/live/one").chmod(mode)
    with pytest.raises(ConfigurationInvalid, match="open to others"):
        ring.wrap("one", bytes(32), b"")


def test_a_link_in_the_key_folder_to_a_key_that_the_attacker_knows(tmp_path):
    ring = open_keyring(Keys(), tmp_path / "kek")
    ring.create("one")
    known = secret(tmp_path / "known", "k" * 31)
    (tmp_path / "kek/live/two").symlink_to(known)
    with pytest.raises(Unavailable, match="cannot be reached"):
        ring.wrap("two", bytes(32), b"")
    with pytest.raises(Unavailable):
        ring.destroy("two")
    assert known.read_text() == "k" * 31 + "\n"


def test_a_key_file_swapped_for_another(folder_blobs, tmp_path):
    sealed = SealedStore(folder_blobs, open_keyring(Keys(), tmp_path / "kek"))
    for key in ("one", "two"):
        sealed.keys.create(key)
    sealed.put_sealed(A, [PLAIN[A]], key_id="one", aad=A.encode())
    (tmp_path / "kek/live/two").replace(tmp_path / "kek/live/one")
    with pytest.raises(VerificationFailed):
        opened(sealed)


def test_a_wrong_pin(softhsm, tmp_path):
    with kept_by("pkcs11", tmp_path, softhsm) as (keys, _):
        wrong = replace(keys, pkcs11=replace(keys.pkcs11, pin_file=str(secret(tmp_path / "wrong", "7777-guessed"))))
        with pytest.raises(ConfigurationInvalid, match="not tried again") as told:
            open_keyring(wrong, tmp_path)
        assert "7777-guessed" not in "".join(traceback.format_exception(told.value))


@pytest.fixture
def lied_to(folder_blobs, softhsm, tmp_path):
    """A version whose key a vault keeps, and the vault."""
    with kept_by("vault", tmp_path, softhsm) as (keys, server):
        assert server, "a vault of somebody else's is not told to lie"
        sealed = SealedStore(
            folder_blobs, open_keyring(replace(keys, vault=replace(keys.vault, timeout_s=0.5)), tmp_path / "kek")
        )
        for path, plain in PLAIN.items():
            sealed.keys.create(path.replace("/", "-"))
            sealed.put_sealed(path, [plain], key_id=path.replace("/", "-"), aad=path.encode())
        yield sealed, server
        sealed.keys.close()


def test_a_vault_that_answers_with_another_keys_plaintext(lied_to):
    sealed, server = lied_to
    others = {}

    def swap(path, status, answer):
        if "/decrypt/" not in path:
            return status, answer
        others.setdefault(path, answer)
        return status, next((other for name, other in others.items() if name != path), answer)

    server.twist = swap
    assert opened(sealed, B) == PLAIN[B]
    with pytest.raises(VerificationFailed):
        opened(sealed)


@pytest.mark.parametrize("plain", ["", "AAAA", "%%%", "A" * 43 + "=", "A" * 8000, None, [], 7])
def test_a_vault_that_answers_garbage(lied_to, plain):
    sealed, server = lied_to
    server.twist = lambda path, status, answer: (200, {"data": {"plaintext": plain}}) if "/decrypt/" in path else (status, answer)
    with pytest.raises(VerificationFailed):
        opened(sealed)


def test_a_vault_that_hands_out_a_ciphertext_of_its_own_choice(lied_to):
    """Then what is sealed would open with a key that the vault chose; it does not open at all."""
    sealed, server = lied_to
    chosen = server.answer(
        "POST", "/v1/transit/encrypt/versions-one", {"X-Vault-Token": server.token}, {"plaintext": "A" * 43 + "="}
    )
    server.twist = lambda path, status, answer: chosen if "/encrypt/" in path else (status, answer)
    sealed.put_sealed("versions/new", [b"new"], key_id="versions-one", aad=b"versions/new")
    server.twist = lambda _, status, answer: (status, answer)
    with pytest.raises(VerificationFailed):
        sealed.open_sealed("versions/new", aad=b"versions/new")


def test_a_vault_that_denies_a_key_that_it_has(lied_to):
    """It can refuse service, and what it refuses is not made anew or called destroyed."""
    sealed, server = lied_to
    server.twist = lambda path, status, answer: (404, {"errors": []}) if "/keys/" in path else (status, answer)
    with pytest.raises(NotFound, match="There is no key"):
        opened(sealed)
    server.twist = lambda _, status, answer: (status, answer)
    assert opened(sealed) == PLAIN[A]


def test_a_vault_that_hangs(lied_to):
    sealed, server = lied_to
    server.twist = lambda *_: (0, lambda _: time.sleep(3))
    began = time.monotonic()
    with pytest.raises(Unavailable):
        opened(sealed)
    assert time.monotonic() - began < 2.5


def test_a_vault_whose_answer_never_ends(lied_to):
    sealed, server = lied_to

    def endless(line):
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            for _ in range(1000):
                line.sendall(b" " * 65536)
        except OSError:
            return

    server.twist = lambda *_: (0, endless)
    with pytest.raises(Unavailable):
        opened(sealed)


def test_a_vault_that_sends_the_token_elsewhere(lied_to):
    sealed, server = lied_to
    with transit() as elsewhere:
        head = f"HTTP/1.1 307 Go\r\nLocation: {elsewhere.address}/v1/transit/keys/a\r\nContent-Length: 0\r\n\r\n".encode()
        server.twist = lambda *_: (0, lambda line: line.sendall(head))
        with pytest.raises(Unavailable):
            opened(sealed)
        assert elsewhere.calls == []


@pytest.mark.parametrize("name", PROVIDERS)
def test_no_key_pin_or_token_in_logs_errors_and_representations(name, folder_blobs, softhsm, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with kept_by(name, tmp_path, softhsm) as (keys, server):
        sealed = SealedStore(folder_blobs, open_keyring(keys, tmp_path / "kek"))
        sealed.keys.create("versions-one")
        sealed.put_sealed(A, [PLAIN[A]], key_id="versions-one", aad=A.encode())
        blob = sealed.open_sealed(A, aad=A.encode())
        said = [repr(each) for each in (blob, sealed, sealed.keys, *sealed.keys.keepers, sealed.record(f"{A}.key"))]
        good = sealed.record(f"{A}.key")
        attempts = [
            lambda: forged(sealed, data=good.data[:-1]) or opened(sealed),
            lambda: forged(sealed, kek="versions-two", data=good.data) or opened(sealed),
            lambda: forged(sealed, data=good.data) or sealed.keys.destroy("versions-one") or opened(sealed),
            lambda: sealed.keys.wrap("versions-one", blob.data_key, b""),
            lambda: sealed.keys.keepers[0].wrap("versions-one", blob.data_key + b"x", b""),
        ]
        for attempt in attempts:
            with pytest.raises(ModelOrganismsError) as told:
                attempt()
            said += ["".join(traceback.format_exception(told.value)), repr(told.value.details)]
        sealed.keys.close()
        text = "\n".join([*said, caplog.text])
        for kept in (blob.data_key, PIN.encode(), server.token.encode() if server else b"\0never"):
            for form in (repr(kept)[2:-1], kept.hex(), base64.b64encode(kept).decode()):
                assert form not in text
