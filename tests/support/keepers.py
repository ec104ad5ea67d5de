"""Keepers of keys, each real: a folder, a SoftHSM token, and a vault: the one that MO_TEST_VAULT_ADDRESS names, or transit.py."""

from __future__ import annotations

import os
import secrets
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from model_organisms_registry.config import Keys, Token, Transit
from model_organisms_registry.storage.keyring import open_keyring

from tests.support.transit import transit

LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")
PIN = "4711-for-tests"
PROVIDERS = ("file", "pkcs11", "vault")


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory):
    """SoftHSM with a folder of its own; it reads its settings when a process first uses it."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    return folder


def new_token(folder) -> Token:
    """A fresh token, and a file with its PIN."""
    label = f"registry-{secrets.token_hex(4)}"
    command = ["softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "0815-for-tests", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return Token(next(path for path in LIBRARIES if Path(path).exists()), label, str(secret(folder / "pin", PIN)))


def secret(path, text) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def hsm(softhsm, tmp_path) -> Token:
    assert softhsm.exists()
    return new_token(tmp_path)


@pytest.fixture
def vault(tmp_path):
    """A server to twist, and the settings to reach it."""
    with transit() as server:
        yield server, reached(server, tmp_path)


def reached(server, folder) -> Transit:
    return Transit(server.address, token_file=str(secret(folder / "token", server.token)), timeout_s=2.0)


def real_vault(folder) -> Transit | None:
    if address := os.environ.get("MO_TEST_VAULT_ADDRESS"):
        token = secret(folder / "real-token", os.environ["MO_TEST_VAULT_TOKEN"])
        mount, ca = os.environ.get("MO_TEST_VAULT_MOUNT", "transit"), os.environ.get("MO_TEST_VAULT_CA", "")
        return Transit(address, mount, token_file=str(token), ca_file=ca)
    return None


@pytest.fixture(params=PROVIDERS)
def provider(request, softhsm, tmp_path):
    """Settings of each keeper in turn; `opened` opens them as often as is liked."""
    with kept_by(request.param, tmp_path, softhsm) as (settings, _):
        yield settings


@contextmanager
def kept_by(name, folder, softhsm):
    """Settings of one keeper, and the server of a vault that this suite brings along."""
    assert softhsm.exists()
    if name == "pkcs11":
        yield Keys(name, pkcs11=new_token(folder)), None
    elif name == "vault" and (real := real_vault(folder)):
        yield Keys(name, vault=real), None
    elif name == "vault":
        with transit() as server:
            yield Keys(name, vault=reached(server, folder)), server
    else:
        yield Keys(name), None


@pytest.fixture
def opened(provider, tmp_path):
    """Open the keeper, each time as after a restart."""
    rings = []

    def again():
        rings.append(open_keyring(provider, tmp_path / "kek"))
        return rings[-1].keepers[0]

    yield again
    for ring in rings:
        ring.close()
