"""The certificate a registry shows is renewed before it ends, without a restart."""

import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from model_organisms.client.client import connect, login
from model_organisms_registry.founding import found
from model_organisms_registry.server import Registry
from model_organisms_registry.storage.authority import SERVER_LIFE
from model_organisms_registry.testing import settings


@pytest.fixture
def registry(tmp_path):
    config = settings(tmp_path / "data")
    ticket = found(config, now=datetime.now(UTC))
    ahead = [timedelta()]
    running = Registry(config, clock=lambda: datetime.now(UTC) + ahead[0])
    running.start()
    login(str(ticket), tmp_path / "admin.json").close()
    yield running, ahead
    running.stop(grace_s=1.0)


def shown(address):
    host, port = address.split(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())


def test_a_new_one_is_shown_when_half_its_life_is_over(registry):
    running, ahead = registry
    address = running.config.enrol_listen
    first = shown(address)
    ahead[0] = SERVER_LIFE / 2 - timedelta(minutes=1)
    assert shown(address).serial_number == first.serial_number
    ahead[0] = SERVER_LIFE / 2 + timedelta(minutes=1)
    second = shown(address)
    assert second.serial_number != first.serial_number
    assert second.not_valid_after_utc - first.not_valid_after_utc > SERVER_LIFE / 2 - timedelta(minutes=1)
    assert shown(address).serial_number == second.serial_number


def answer(address, authority, identity=None, folder=None):
    """The first byte of an answer to HTTP/2's greeting; nothing where the door stays shut."""
    host, port = address.split(":")
    context = ssl.create_default_context(cadata=authority.decode())
    context.set_alpn_protocols(["h2"])
    if identity:
        chain = folder / "chain.pem"
        chain.write_bytes(identity.tls_key + identity.certificate)
        context.load_cert_chain(chain)
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as bare,
        ):
            bare.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
            return bare.recv(1)
    except ssl.SSLError:
        return b""


def test_the_main_door_still_demands_a_certificate(registry, tmp_path):
    running, _ = registry
    authority = running.storage.authority.pem
    with connect(tmp_path / "admin.json") as admin:
        assert answer(running.config.listen, authority, admin.identity, tmp_path)
    assert answer(running.config.listen, authority) == b""
