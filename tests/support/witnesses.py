"""Witnesses for tests: real ones, each a process of its own; misbehaving ones, servers that answer one way; and a ledger."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.formats import checkpoint, merkle
from model_organisms.formats.note import COSIGNATURE, SigningKey
from model_organisms.formats.witness import Submission, print_submission
from model_organisms_registry.ledger import witness as witnesses
from model_organisms_registry.ledger.web import Site

from tests.support.serving import SERVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_organisms_registry.ledger.web import Answer


@dataclass(frozen=True)
class Standing:
    """A witness that can be asked."""

    vkey: str
    url: str
    process: subprocess.Popen[bytes] | None = None


@contextmanager
def running(folder: Path, name: str, *vkeys: str) -> Iterator[Standing]:
    """A real witness, from the command that operators type."""
    vkey = witnesses.create(folder, name)
    for watched in vkeys:
        witnesses.add(folder, watched)
    log = folder / "log"
    command = [SERVE[0], "witness", "serve", "--folder", str(folder), "--listen", "127.0.0.1:0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until = time.monotonic() + 30
        while b" listens on " not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        address = log.read_text().partition(" listens on ")[2].partition(",")[0]
        yield Standing(vkey, f"http://{address}", process)
    finally:
        process.kill()
        process.wait(10)


@contextmanager
def answering(name: str, answer: Callable[[SigningKey, bytes], Answer]) -> Iterator[Standing]:
    """A witness with a key of its own that answers as the test says."""
    key = SigningKey.generate(name, kind=COSIGNATURE)
    site = Site("127.0.0.1:0", lambda _method, _path, body: answer(key, body), most_body=1 << 20)
    site.start()
    try:
        yield Standing(str(key.verifier), f"http://{site.address}")
    finally:
        site.close()


class History:
    """A ledger's leaves and key, and what it sends to witnesses. Two with one key and other leaves are a fork."""

    def __init__(self, origin: str, *, fork: int = 1 << 62, key: SigningKey | None = None) -> None:
        self.key = key or SigningKey.generate(origin)
        self.vkey = str(self.key.verifier)
        self._fork = fork

    def leaf(self, index: int) -> bytes:
        return merkle.leaf_hash(f"{index}{' of the fork' if index >= self._fork else ''}".encode())

    def hash_at(self, level: int, index: int) -> bytes:
        return merkle.root_of(self.leaf(at) for at in range(index << level, (index + 1) << level))

    def checkpoint(self, size: int) -> bytes:
        return checkpoint.signed(self.key.name, size, merkle.root(size, self.hash_at), self.key).note

    def submission(self, old: int, new: int, *, note: bytes | None = None) -> bytes:
        proof = merkle.consistency(min(old, new), new, self.hash_at)
        return print_submission(Submission(old, proof, note or self.checkpoint(new)))
