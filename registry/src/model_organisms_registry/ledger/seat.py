"""The signer in a process of its own, so that the registry that asks it never holds the ledger's key. It decides what it signs.

    frame      u32be length || body, at most 8 KiB, over a Unix socket that only parent and child have
    question   "V" who are you | "H" hold | "R" release | "S" u64be size || root[32] || hash[32]*
    answer     "K" payload: vkey | u64be size of the last head | nothing | the signed note
               "E" reason, newline, message: an error of the tree

The child ends when its parent's end of the socket closes, so it outlives no registry, however that ended. One that does not
answer in time is killed: what it was about to sign is in its memory or is not, and the next one knows.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from model_organisms.errors import BY_REASON, InvalidArgument, LedgerUnavailable, ModelOrganismsError
from model_organisms.formats.merkle import HASH_SIZE
from model_organisms.formats.note import parse_vkey

from model_organisms_registry.ledger.signer import HEAD, Signer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_organisms.formats.note import VerifierKey

_MOST = 8192
_U32, _U64 = 4, 8
_START_S = 30.0
_ANSWER_S = 1.0
"""A disk that takes longer is a disk that hangs; callers of the ledger wait two seconds in all."""


class Seat:
    """A signer at arm's length, with the face of `Signer`. A child that died is started anew by the next `hold`.

    Args:
        folder: The signer's own folder, made by `Signer.create`.
    """

    def __init__(self, folder: Path) -> None:
        """Start the child; nothing is asked yet."""
        self.path = folder / HEAD
        self.size = 0
        """Entries of the last head signed."""
        self._folder = folder
        self._lock = threading.Lock()
        self._held = False
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._start()
        self._vkey = ""

    @property
    def vkey(self) -> str:
        """The ledger's verifier key."""
        if not self._vkey:
            self._vkey = self._ask(b"V", _START_S).decode()
            parse_vkey(self._vkey)
        return self._vkey

    @property
    def verifier(self) -> VerifierKey:
        """The same, read."""
        return parse_vkey(self.vkey)

    @property
    def origin(self) -> str:
        """Name of the ledger."""
        return self.verifier.name

    @property
    def held(self) -> bool:
        """Whether the child that runs holds its memory."""
        return self._held and self._socket is not None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The child, for those who watch it."""
        return self._child

    def hold(self) -> None:
        """Have the child lock its memory and read it; a child that is gone is started anew.

        Raises:
            LedgerUnavailable: It does not start, or another process holds the memory.
            VerificationFailed: The memory is not what a signer of this ledger wrote.
        """
        if self._socket is None:
            self._start()
        self.size = int.from_bytes(self._ask(b"H", _START_S), "big")
        self._held = True

    def release(self) -> None:
        """Have it let the memory go."""
        if self.held:
            with suppress(LedgerUnavailable):  # a child that is gone holds nothing
                self._ask(b"R", _ANSWER_S)
        self._held = False

    def sign(self, size: int, root: bytes, proof: Sequence[bytes]) -> bytes:
        """Have a head signed; the child checks that it continues the last one.

        Raises:
            LedgerForked: It does not; nothing was signed.
            LedgerUnavailable: The child did not answer in time, or could not write the head down.
        """
        note = self._ask(b"S" + size.to_bytes(_U64, "big") + root + b"".join(proof), _ANSWER_S)
        self.size = size
        return note

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._drop()

    def __del__(self) -> None:
        """End the child of a registry that failed to start."""
        self._drop()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "model_organisms_registry", "signer", "--folder", str(self._folder)]
            try:
                self._child = subprocess.Popen(
                    [*command, "--socket", str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
                )
            except OSError as error:
                ours.close()
                raise LedgerUnavailable(f"The ledger's signer could not be started ({error.strerror}).") from error
        self._socket, self._held = ours, False

    def _ask(self, question: bytes, patience_s: float) -> bytes:
        with self._lock:
            if self._socket is None:
                raise LedgerUnavailable("The ledger's signer is not running; it is started again in a moment.")
            try:
                self._socket.settimeout(patience_s)
                _send(self._socket, question)
                answer = _receive(self._socket)
            except OSError as error:
                self._drop()
                raise LedgerUnavailable("The ledger's signer did not answer in time; it is started again.") from error
            if answer is None:
                self._drop()
                raise LedgerUnavailable("The ledger's signer has ended; it is started again.")
        if answer[:1] == b"K":
            return answer[1:]
        reason, _, message = answer[1:].decode("utf-8", "replace").partition("\n")
        raise BY_REASON.get(reason, LedgerUnavailable)(message)

    def _drop(self) -> None:
        """Hang up, and end a child that does not end by itself, so that its memory is free for the next."""
        child, self._child = self._child, None
        held, self._socket = self._socket, None
        self._held = False
        if held is not None:
            held.close()
        if child is not None:
            child.kill()
            child.wait()


def serve(folder: Path, descriptor: int) -> None:
    """Be the signer: answer one parent over an inherited socket, until it hangs up.

    Signals that end a registry are left to it: what it still writes while it stops must be signed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as parent:
        signer: Signer | None = None
        while (question := _receive(parent)) is not None:
            try:
                signer = signer or Signer.open(folder)
                answer = b"K" + _answer(signer, question)
            except ModelOrganismsError as error:
                answer = b"E" + f"{error.reason}\n{error.message}".encode()[: _MOST - 1]
            with suppress(OSError):  # the parent has gone; the next read says so
                _send(parent, answer)


def _answer(signer: Signer, question: bytes) -> bytes:
    what, rest = question[:1], question[1:]
    if what == b"V" and not rest:
        return signer.vkey.encode()
    if what == b"H" and not rest:
        signer.hold()
        return signer.size.to_bytes(_U64, "big")
    if what == b"R" and not rest:
        signer.release()
        return b""
    if what == b"S" and len(rest) >= _U64 + HASH_SIZE and (len(rest) - _U64) % HASH_SIZE == 0:
        hashes = [rest[at : at + HASH_SIZE] for at in range(_U64, len(rest), HASH_SIZE)]
        return signer.sign(int.from_bytes(rest[:_U64], "big"), hashes[0], hashes[1:])
    raise InvalidArgument("The signer does not know this question.")


def _send(to: socket.socket, body: bytes) -> None:
    to.sendall(len(body).to_bytes(_U32, "big") + body)


def _receive(of: socket.socket) -> bytes | None:
    """Read a frame; nothing where the other side has hung up."""
    head = _exactly(of, _U32)
    size = int.from_bytes(head or b"", "big")
    if head is None or not 0 < size <= _MOST:
        return None
    return _exactly(of, size)


def _exactly(of: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        try:
            part = of.recv(count - len(data))
        except ConnectionResetError:  # hung up with something unread
            return None
        if not part:
            return None
        data += part
    return data
