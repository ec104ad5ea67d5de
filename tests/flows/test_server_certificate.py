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


def test_the_main_door_still_demands_a_certificate(registry, tmp_path):
    running, _ = registry
    with connect(tmp_path / "admin.json") as admin:
        assert admin.users.whoami().name == "users/admin"
    host, port = running.config.listen.split(":")
    context = ssl.create_default_context(cadata=running.storage.authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as bare,
        pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"),
    ):
        bare.recv(1)
