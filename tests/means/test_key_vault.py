"""Keys in a vault: believed on what is alive and what is dead, not on what it decrypts; silence proves nothing."""

from __future__ import annotations

import base64
import ipaddress
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_organisms.errors import ConfigurationInvalid, NotFound, Unavailable, VerificationFailed
from model_organisms_registry.config import Transit
from model_organisms_registry.storage.key_vault import VaultKeys
from model_organisms_registry.storage.keys import KeyState

from tests.support.keepers import secret
from tests.support.transit import transit

KEY = bytes(range(32))


@pytest.fixture
def keys(vault):
    kept = VaultKeys(vault[1])
    yield kept
    kept.close()


@pytest.fixture
def server(vault):
    return vault[0]


def test_a_key_is_made_so_that_it_stays_there(keys, server):
    keys.create("a")
    made = server.keys["a"]
    assert (made["type"], made["exportable"], made["allow_plaintext_backup"], made["derived"]) == ("aes256-gcm96", *[False] * 3)
    keys.destroy("a")
    assert list(server.keys) == ["a.destroyed"]


def test_wrapping_under_a_key_that_is_not_there_makes_none(keys, server):
    with pytest.raises(NotFound):
        keys.wrap("a", KEY, b"")
    assert server.keys == {}


def test_a_destruction_that_was_cut_off_is_finished_at_the_next_start(keys, server, vault):
    keys.create("a")
    keys.create("b")
    server.twist = lambda path, status, answer: (500, {"errors": ["down"]}) if path.endswith("/config") else (status, answer)
    with pytest.raises(Unavailable):
        keys.destroy("a")
    assert "a" in server.keys
    assert keys.state("a") is KeyState.DESTROYED
    server.twist = lambda _, status, answer: (status, answer)
    again = VaultKeys(vault[1])
    again.finish()
    again.close()
    assert set(server.keys) == {"a.destroyed", "b"}


def test_a_key_that_the_server_does_not_delete_is_not_called_destroyed(keys, server):
    keys.create("a")
    kept = dict(server.keys)

    def undone(_, status, answer):
        server.keys.update(kept if status == 204 else {})
        return status, answer

    server.twist = undone
    with pytest.raises(Unavailable, match="did not delete"):
        keys.destroy("a")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Sign in</html>"),
        (200, b"[]"),
        (200, b'{"data": 3}'),
        (200, b"[" * 100_000),
        (404, {"errors": ["no handler for route"]}),
        (404, b"not found"),
        (307, {"errors": []}),
        (403, {"errors": ["permission denied"]}),
        (429, {"errors": []}),
        (503, {"errors": ["Vault is sealed"]}),
        (500, {"errors": ["internal error"]}),
    ],
)
def test_an_answer_that_is_no_answer_makes_no_key_missing(keys, server, status, body):
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"")
    server.twist = lambda *_: (status, body)
    for call in (
        lambda: keys.state("a"),
        lambda: keys.create("b"),
        lambda: keys.wrap("a", KEY, b""),
        lambda: keys.unwrap("a", wrapped, b""),
        lambda: keys.destroy("c"),
    ):
        with pytest.raises(Unavailable):
            call()
    server.twist = lambda _, status, answer: (status, answer)
    assert keys.unwrap("a", wrapped, b"") == KEY


def test_a_server_that_is_gone_or_cuts_the_line_is_unavailable(vault, server):
    kept = VaultKeys(vault[1])
    kept.create("a")
    server.twist = lambda *_: (0, lambda line: line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"))
    with pytest.raises(Unavailable):
        kept.state("a")
    server.twist = lambda *_: (0, lambda _: None)
    with pytest.raises(Unavailable):
        kept.state("a")
    kept.close()
    gone = VaultKeys(replace(vault[1], address="http://127.0.0.1:9"))
    with pytest.raises(Unavailable, match="does not answer"):
        gone.state("a")


def test_an_idle_line_that_the_server_hung_up_is_dialled_again(keys, server):
    keys.create("a")
    calls = iter([True])
    server.twist = lambda _, status, answer: (0, lambda _: None) if next(calls, False) else (status, answer)
    assert keys.state("a") is KeyState.LIVE


def test_a_drop_at_a_time_is_too_slow(vault, server):
    kept = VaultKeys(replace(vault[1], timeout_s=0.5))

    def drip(line):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b" " * 60:
            time.sleep(0.1)
            line.sendall(bytes([byte]))

    def dripping(line):
        try:
            drip(line)
        except OSError:
            return

    server.twist = lambda *_: (0, dripping)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        kept.state("a")
    assert time.monotonic() - began < 5
    kept.close()


def test_a_token_that_was_renewed_in_its_file_is_used_from_the_next_call_on(keys, server, tmp_path):
    keys.create("a")
    server.token = "renewed"
    with pytest.raises(Unavailable, match="refuses the registry's token"):
        keys.state("a")
    secret(tmp_path / "token", "renewed")
    assert keys.state("a") is KeyState.LIVE


def test_a_token_may_come_from_a_variable_and_a_namespace_goes_along(monkeypatch):
    monkeypatch.setenv("THE_TOKEN", "t0ken")
    with transit(mount="kek", namespace="team-a") as server:
        kept = VaultKeys(Transit(server.address, "kek", "team-a", token_env="THE_TOKEN"))
        kept.create("a")
        kept.close()
        other = VaultKeys(Transit(server.address, "kek", "team-b", token_env="THE_TOKEN"))
        with pytest.raises(Unavailable):
            other.state("a")
        other.close()
    monkeypatch.delenv("THE_TOKEN")
    with pytest.raises(ConfigurationInvalid, match="THE_TOKEN"):
        VaultKeys(Transit("https://vault.example.org:8200", token_env="THE_TOKEN"))


@pytest.mark.parametrize(
    "address",
    ["", "vault.example.org", "ftp://127.0.0.1", "http://vault.example.org:8200", "https://u:p@127.0.0.1", "https://h/v1"],
)
def test_an_address_that_cannot_be_or_sends_the_token_in_clear_is_refused(vault, address):
    with pytest.raises(ConfigurationInvalid):
        VaultKeys(replace(vault[1], address=address))


def certificate(folder, name):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    signed = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_a_server_that_nobody_vouches_for_is_not_told_the_token(tmp_path, vault):
    tls = certificate(tmp_path, "vault")
    with transit(tls=tls) as server:
        trusted = VaultKeys(replace(vault[1], address=server.address, ca_file=tls[0]))
        trusted.create("a")
        trusted.close()
        said = len(server.calls)
        with pytest.raises(Unavailable, match="SSLCert"):
            VaultKeys(replace(vault[1], address=server.address)).state("a")
        assert len(server.calls) == said
    with pytest.raises(ConfigurationInvalid, match="no certificates"):
        VaultKeys(replace(vault[1], address="https://127.0.0.1:1", ca_file=str(tmp_path / "absent")))


@pytest.mark.parametrize("plain", [bytes(32), b"", b"short", bytes(33), "%%", None, 3])
def test_a_vault_that_decrypts_to_something_else_is_not_believed(keys, server, plain):
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"purpose")
    said = base64.b64encode(plain).decode() if isinstance(plain, bytes) else plain
    server.twist = lambda path, *rest: (200, {"data": {"plaintext": said}}) if "/decrypt/" in path else rest
    with pytest.raises(VerificationFailed):
        keys.unwrap("a", wrapped, b"purpose")


def test_a_vault_that_knows_no_associated_data_binds_all_the_same(keys, server, monkeypatch):
    """Servers before `associated_data` leave it out without a word."""
    monkeypatch.setattr(
        server, "_encrypt", lambda name, said: type(server)._encrypt(server, name, said | {"associated_data": ""})
    )
    monkeypatch.setattr(
        server, "_decrypt", lambda name, said: type(server)._decrypt(server, name, said | {"associated_data": ""})
    )
    keys.create("a")
    wrapped = keys.wrap("a", KEY, b"purpose")
    assert keys.unwrap("a", wrapped, b"purpose") == KEY
    with pytest.raises(VerificationFailed):
        keys.unwrap("a", wrapped, b"other")
