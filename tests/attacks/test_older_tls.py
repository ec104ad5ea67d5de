"""What is older than TLS 1.3 gets through no handshake of `mo-registry serve`, on neither port, whatever certificate it holds."""

from __future__ import annotations

import socket
import ssl
import warnings

import pytest
from model_organisms.client import keys
from model_organisms_registry.testing import settings

from tests.support.serving import serving


@pytest.fixture(scope="module")
def shake(tmp_path_factory):
    """Shake hands with a registry that runs as operators run it, as its admin, in one version of TLS; say which it became."""
    folder = tmp_path_factory.mktemp("older")
    config = settings(folder / "data")
    with serving(config, folder):
        who = keys.read(folder / "admin.json")
        (folder / "admin.pem").write_bytes(who.tls_key + who.certificate)

        def shaken(port, version):
            context = ssl.create_default_context(cadata=who.authority.decode())
            context.load_cert_chain(folder / "admin.pem")
            context.set_alpn_protocols(["h2"])
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is the point
                context.minimum_version = context.maximum_version = version
            address = ("127.0.0.1", int(getattr(config, port).rsplit(":", 1)[-1]))
            raw = socket.create_connection(address, timeout=20)
            with raw, context.wrap_socket(raw, server_hostname="localhost") as wrapped:
                assert wrapped.recv(9)[3] == 4, "HTTP/2 begins with a SETTINGS frame"
                return wrapped.version()

        yield shaken


@pytest.mark.parametrize("port", ["listen", "enrol_listen"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_downgrade(shake, port, version):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shake(port, version)


@pytest.mark.parametrize("port", ["listen", "enrol_listen"])
def test_the_same_hand_is_taken_in_tls_1_3(shake, port):
    assert shake(port, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
