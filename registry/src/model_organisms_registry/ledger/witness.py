"""A witness (C2SP tlog-witness): cosigns the checkpoints of other people's ledgers, each only if it continues the last one.

It shares nothing with a registry but the byte formats and the signer's kind of memory, and it should run on another machine,
under another person. Whoever sees its cosignature knows that the witness has seen no other history of that ledger.

    key                 its secret, of type 0x04
    logs/ID/vkey        a ledger it watches
    logs/ID/head        the last head it cosigned of it
    logs/ID/refused-N   a checkpoint, signed by the ledger, that does not continue that head: evidence

A ledger's memory is made when the ledger is added, and only then. A witness that lost it must not begin anew under the same key:
it would cosign a second history.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from model_organisms.errors import (
    ConfigurationInvalid,
    InvalidArgument,
    LedgerForked,
    LedgerUnavailable,
    ModelOrganismsError,
    SignatureInvalid,
)
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import witness as wire
from model_organisms.formats.note import COSIGNATURE, ED25519, SigningKey, VerifierKey, parse_vkey

from model_organisms_registry.ending import Ending
from model_organisms_registry.ledger.memory import Memory, write_new
from model_organisms_registry.ledger.signer import HEAD, KEY, read_key
from model_organisms_registry.ledger.web import Answer, Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from model_organisms.records import Checkpoint

_LOG = logging.getLogger(__name__)
LOGS = "logs"
VKEY = "vkey"
_MOST_EVIDENCE = 16


@dataclass(slots=True)
class Watched:
    """One ledger, and the last head cosigned of it."""

    key: VerifierKey
    memory: Memory
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Checking the old size and remembering the new head are one step."""


class Witness:
    """A witness's key and the ledgers it watches.

    Args:
        folder: Its folder, made by `create`.
        key: Its key, of type 0x04.
        clock: Seconds since 1970.
    """

    def __init__(self, folder: Path, key: SigningKey, *, clock: Callable[[], float]) -> None:
        """Read which ledgers there are, and hold each one's memory."""
        self.vkey = str(key.verifier)
        self._key = key
        self._clock = clock
        self._logs = {watched.key.name: watched for watched in map(_watched, sorted((folder / LOGS).iterdir()))}
        for watched in self._logs.values():
            watched.memory.hold()

    @classmethod
    def open(cls, folder: Path, *, clock: Callable[[], float]) -> Witness:
        """Open a witness.

        Raises:
            ConfigurationInvalid: There is none in the folder, or its key is not a witness's.
            LedgerUnavailable: A memory is missing or held by another process.
        """
        if not (folder / LOGS).is_dir():
            raise ConfigurationInvalid(f"There is no witness in {folder}; make one with `mo-registry witness init`.")
        key = read_key(folder / KEY)
        if key.kind != COSIGNATURE:
            raise ConfigurationInvalid(f"{folder / KEY} is not a witness's key (type 4); a ledger's key must not cosign.")
        return cls(folder, key, clock=clock)

    @property
    def origins(self) -> tuple[str, ...]:
        """Names of the ledgers it watches."""
        return tuple(self._logs)

    def close(self) -> None:
        """Let the memories go."""
        for watched in self._logs.values():
            watched.memory.release()

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer an HTTP request: one call is known."""
        if path != wire.PATH:
            return _said(HTTPStatus.NOT_FOUND, "This is a witness; it answers POST /add-checkpoint (c2sp.org/tlog-witness).")
        if method != "POST":
            return _said(HTTPStatus.METHOD_NOT_ALLOWED, "Send POST.")
        return self.add_checkpoint(body)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Cosign a checkpoint if it continues the last one, in the order and with the status codes of the specification.

        1. It is a request with a checkpoint in it (400). 2. Of a ledger that is watched (404). 3. Signed by its key (403).
        4. The old size is not above the new one (400), 5. and is that of the last head cosigned (409, with that size).
        6. Of two heads of one size the roots are the same (409), 7. else the proof leads from one to the other (422).
        8. The new head is on disk; only then is it cosigned.
        """
        try:
            return self._cosigned(*self._opened(body))
        except _Refused as refusal:
            return refusal.answer

    def _opened(self, body: bytes) -> tuple[wire.Submission, Watched, Checkpoint]:
        """Steps 1 to 4."""
        try:
            asked = wire.parse_submission(body)
            origin = checkpoints.parse_unverified(asked.note).origin
        except (InvalidArgument, SignatureInvalid) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, error.message) from error
        watched = self._logs.get(origin)
        if watched is None:
            what = "This ledger is not watched here; ask the witness's operator to add its key."
            raise _Refused(HTTPStatus.NOT_FOUND, what)
        try:
            head = checkpoints.verified(asked.note, watched.key, origin=origin)
        except SignatureInvalid as error:
            raise _Refused(HTTPStatus.FORBIDDEN, error.message) from error
        if asked.old_size > head.size:
            raise _Refused(HTTPStatus.BAD_REQUEST, "The old size is above the size of the checkpoint.")
        return asked, watched, head

    def _cosigned(self, asked: wire.Submission, watched: Watched, head: Checkpoint) -> Answer:
        """Steps 5 to 8, which no other request for this ledger may come between."""
        with watched.lock:
            memory = watched.memory
            forked = head.size == memory.size and head.root != memory.root
            if forked:
                _keep_evidence(watched, head.note)
            if forked or asked.old_size != memory.size:
                return Answer(HTTPStatus.CONFLICT, wire.print_size(memory.size), wire.SIZE_TYPE)
            try:
                memory.advance(head.size, head.root, asked.proof)
            except LedgerForked as error:
                _keep_evidence(watched, head.note)
                raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.message) from error
            except LedgerUnavailable as error:
                _LOG.exception("the head of %s could not be written down, so it is not cosigned", head.origin)
                raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The witness cannot write; try again later.") from error
            line = checkpoints.cosignature(head.note, self._key, time=int(self._clock()))
        return Answer(HTTPStatus.OK, f"{line}\n".encode())


class _Refused(Exception):
    """An answer that says no."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.answer = _said(status, text)


def create(folder: Path, name: str) -> str:
    """Make a witness's folder and key, once in its life.

    Returns:
        Its verifier key, for those who shall rely on it.

    Raises:
        AlreadyExists: There is one in the folder.
        ConfigurationInvalid: The name cannot name a key.
    """
    key = SigningKey.generate(name, kind=COSIGNATURE)
    (folder / LOGS).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new(folder / KEY, key.secret_text().encode() + b"\n")
    return str(key.verifier)


def add(folder: Path, vkey: str) -> str:
    """Begin to watch a ledger, from nothing: the next checkpoint of it that comes is believed, all later ones must continue it.

    Returns:
        Its origin, which is the name of its key.

    Raises:
        AlreadyExists: It is watched.
        ConfigurationInvalid: No witness in the folder, or no ledger's key.
    """
    key = parse_vkey(vkey)
    if not (folder / LOGS).is_dir():
        raise ConfigurationInvalid(f"There is no witness in {folder}; make one with `mo-registry witness init`.")
    if key.kind != ED25519:
        raise ConfigurationInvalid(f"{key.name} is not a ledger's key (type 1).")
    place = folder / LOGS / hashlib.sha256(key.name.encode()).hexdigest()[:32]
    place.mkdir(mode=0o700, exist_ok=True)
    Memory.create(place / HEAD, key.name)
    write_new(place / VKEY, vkey.encode() + b"\n")
    return key.name


def serve(folder: Path, listen: str) -> None:
    """Answer until SIGTERM or SIGINT."""
    ended = Ending()
    here = Witness.open(folder, clock=time.time)
    site = Site(listen, here.answer, most_body=wire.MAX_SUBMISSION)
    site.start()
    _LOG.info("witness %s listens on %s, for %s", here.vkey, site.address, ", ".join(here.origins) or "no ledger yet")
    ended.wait()
    site.close()
    here.close()


def _watched(place: Path) -> Watched:
    try:
        key = parse_vkey((place / VKEY).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{place / VKEY} cannot be read; restore it, or remove {place} to add it again.") from error
    return Watched(key, Memory(place / HEAD, key.name))


def _keep_evidence(watched: Watched, note: bytes) -> None:
    """Keep a checkpoint that its ledger signed and that does not continue what was cosigned; only the ledger can make one."""
    _LOG.critical("%s has signed a checkpoint that does not continue the one cosigned before", watched.key.name)
    for number in range(_MOST_EVIDENCE):
        path = watched.memory.path.with_name(f"refused-{number}")
        try:
            if path.exists() and path.read_bytes() == note:
                return
            write_new(path, note)
        except (ModelOrganismsError, OSError):
            continue
        return


def _said(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, text.encode() + b"\n")
