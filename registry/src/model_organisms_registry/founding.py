"""Founding a registry and opening what it keeps: the parts that `init`, `serve`, `fsck` and `backup` share.

Founding is done once: keys, database, ledger, and the first admin's ticket. Nothing here listens or decides.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from model_organisms.errors import AlreadyExists, ConfigurationInvalid
from model_organisms.formats.enrolment import Ticket

from model_organisms_registry.config import Keys
from model_organisms_registry.ledger.log import Log
from model_organisms_registry.ledger.seat import Seat
from model_organisms_registry.ledger.signer import Signer
from model_organisms_registry.storage.authority import Authority
from model_organisms_registry.storage.blobs import Blobs
from model_organisms_registry.storage.database import Database
from model_organisms_registry.storage.keyring import Keyring, open_keyring
from model_organisms_registry.workflows.changes import Changes
from model_organisms_registry.workflows.identity import Addresses, first_admin

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from model_organisms_registry.config import Config


@dataclass(slots=True)
class Storage:
    """What is kept, opened: the parts that `serve`, `fsck`, `backup` and `init` share."""

    config: Config
    database: Database
    blobs: Blobs
    keys: Keyring
    authority: Authority
    release_key: Ed25519PrivateKey
    log: Log

    @classmethod
    def open(cls, config: Config, *, apart: bool = False) -> Storage:
        """Open everything under a data folder that `initialise` made; the ledger is not started yet.

        Args:
            config: The settings.
            apart: Have a process of its own sign for the ledger, so that this one never holds the ledger's key.
        """
        signer = (Seat if apart else Signer.open)(config.keys_folder / "ledger")
        keyring = open_keyring(config.keys, config.kek_folder)
        keyring.finish()
        database, asked = Database(config.database_url, patience_s=config.limits.ledger_wait_s), config.witnesses
        if config.replica.name and database.dialect != "postgresql":
            msg = "Several processes share a registry only on PostgreSQL; leave 'replica.name' out, or set 'database'."
            raise ConfigurationInvalid(msg)
        database.migrate()
        blobs = Blobs(config.blobs_url)
        keys = config.keys_folder
        return cls(
            config,
            database,
            blobs,
            keyring,
            Authority(keys, config.origin),
            Ed25519PrivateKey.from_private_bytes(_read_key(keys / "release.key")),
            Log(
                database,
                blobs,
                signer,
                standby=bool(config.replica.name),
                witnesses=asked.keys,
                quorum=asked.quorum,
                witness_timeout_s=asked.timeout_s,
                witness_lag_s=asked.lag_s,
            ),
        )

    def close(self) -> None:
        """Stop the ledger and let the database go."""
        self.log.close()
        self.database.close()
        self.keys.close()


def found(config: Config, *, now: datetime) -> Ticket:
    """Make a data folder: keys, database, ledger, first admin.

    Args:
        config: Settings whose folder does not exist yet, or is empty.
        now: The time.

    Returns:
        The first admin's enrolment ticket.

    Raises:
        AlreadyExists: There is a registry in that folder.
    """
    folder = config.folder
    if (folder / "registry.toml").exists():
        raise AlreadyExists(f"There is a registry in {folder} already; name another folder, or run `mo-registry serve`.")
    keys = config.keys_folder
    for path in (folder, keys, config.kek_folder, folder / "blobs"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    Authority.create(keys, config.origin, now=now)
    _write_key(keys / "release.key", os.urandom(32))
    Signer.create(keys / "ledger", origin=config.origin)
    _write_settings(config)
    storage = Storage.open(config)
    try:
        storage.log.start()
        changes = Changes(storage.database, storage.log, wait_s=config.limits.ledger_wait_s)
        code = first_admin(changes, now=now)
    finally:
        storage.close()
    where = addresses(config)
    return Ticket(where.registry, where.enrol, storage.authority.pem.decode(), code)


def public_ticket(config: Config) -> Ticket:
    """Make the ticket without a code: where to go and whom to trust there, for those who come from an identity provider."""
    where = addresses(config)
    return Ticket(where.registry, where.enrol, Authority(config.keys_folder, config.origin).pem.decode(), "")


def addresses(config: Config) -> Addresses:
    """Where clients call: the first host of the certificate, with the ports that are listened on."""
    ports = [address.rsplit(":", 1)[-1] for address in (config.listen, config.enrol_listen)]
    return Addresses(*(f"{config.hosts[0]}:{port}" for port in ports))


def free_ports(config: Config) -> Config:
    """The same settings on two free loopback ports, for tests and demos."""
    with socket.socket() as first, socket.socket() as second:
        for taken in (first, second):
            taken.bind(("127.0.0.1", 0))
        listen, enrol = (f"127.0.0.1:{taken.getsockname()[1]}" for taken in (first, second))
    return replace(config, listen=listen, enrol_listen=enrol)


def _write_settings(config: Config) -> None:
    lines = [
        "# Settings of this registry; deploy/registry.toml lists and explains every key.",
        f'origin = "{config.origin}"',
        f'listen = "{config.listen}"',
        f'enrol_listen = "{config.enrol_listen}"',
        f"hosts = [{', '.join(chr(34) + host + chr(34) for host in config.hosts)}]",
        *([f'database = "{config.database}"'] if config.database else []),
        *([f'blobs = "{config.blobs}"'] if config.blobs else []),
        "",
        "[cells.base_models]",
        *(f'"{name}" = "{folder}"' for name, folder in config.cells.base_models.items()),
        *_keys_settings(config.keys),
        "",
    ]
    (config.folder / "registry.toml").write_text("\n".join(lines), "utf-8")


def _keys_settings(keys: Keys) -> list[str]:
    """Tables of who keeps keys; none where the file provider does, by default."""
    if keys == Keys():
        return []
    lines = [
        "",
        "[keys]",
        f'provider = "{keys.provider}"',
        f"also = [{', '.join(f'{chr(34)}{name}{chr(34)}' for name in keys.also)}]",
    ]
    for name, table in (("pkcs11", keys.pkcs11), ("vault", keys.vault)):
        lines += ["", f"[keys.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in asdict(table).items())]
    return lines


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        msg = f"{path} cannot be read ({error}); restore it from a backup."
        raise ConfigurationInvalid(msg) from error


def _write_key(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
