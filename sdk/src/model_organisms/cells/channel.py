"""Moves frames over the one inherited socket: a big-endian 32-bit length, then the frame, at most 1 MiB.

Knows nothing of what the frames say (`frames.py` does) nor of processes. A frame that is too long or does not parse ends the
conversation: the other end is not what it should be.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from contextlib import suppress

from model_organisms.cells.frames import Frame, decode, encode
from model_organisms.errors import CellUnavailable, DeadlineExceeded, InvalidArgument

LARGEST = 1 << 20
"""Bytes of the longest frame, its length not counted."""
_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 16


def packed(frame: Frame) -> bytes:
    """Print a frame with its length before it.

    Raises:
        InvalidArgument: It would be over 1 MiB.
    """
    payload = encode(frame)
    if len(payload) > LARGEST:
        msg = f"The conversation is too long for a cell: {len(payload)} bytes, and {LARGEST} is the most; shorten it."
        raise InvalidArgument(msg)
    return _LENGTH.pack(len(payload)) + payload


class Channel:
    """One end of the socket.

    - One thread receives, then closes; any may send, one after another (`Cell` sees to all three).
    - A cell, which has one thread for everything, sends by `offer`, so that it never waits for a registry that waits for it.
    - A descriptor travels only towards the cell: the registry's end never asks the kernel for one.
    """

    def __init__(self, connected: socket.socket, *, takes_descriptor: bool = False) -> None:
        """Take the socket over."""
        self._socket = connected
        self._takes = takes_descriptor
        self._received = bytearray()
        self._descriptors: list[int] = []

    def hang_up(self) -> None:
        """End the conversation, from any thread: the other end, and whoever receives here, reads that as the end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this end; the other reads that as the end."""
        self._socket.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def send(self, frame: Frame, *, descriptor: int = -1, within_s: float | None = 10.0) -> None:
        """Send one frame, whole.

        Args:
            frame: What to say.
            descriptor: To pass along; the other end gets its own.
            within_s: Seconds until the other end counts as hung; None waits for ever.

        Raises:
            InvalidArgument: The frame would be over 1 MiB.
            CellUnavailable: The other end is gone or does not read.
        """
        rest = memoryview(packed(frame))
        until = None if within_s is None else time.monotonic() + within_s
        try:
            while rest:
                self._wait(select.POLLOUT, until)
                if descriptor >= 0:
                    rest = rest[socket.send_fds(self._socket, [rest], [descriptor], socket.MSG_DONTWAIT) :]
                    descriptor = -1
                else:
                    rest = rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]
        except (OSError, DeadlineExceeded) as error:
            raise CellUnavailable("The cell does not listen any more; open a new session.") from error

    def offer(self, data: bytes | bytearray) -> int:
        """Send as much of this as can be sent without waiting, and tell how many bytes that was.

        Raises:
            CellUnavailable: The other end is gone.
        """
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise CellUnavailable("The other end of the cell's socket is gone.") from error

    def idle(self, *, seconds: float | None, sending: bool = False) -> None:
        """Wait until there is something to receive or, where `sending`, room to send; or for so many seconds."""
        if not self._received:
            self._poll(select.POLLIN | (select.POLLOUT if sending else 0), seconds)

    def roomy(self) -> bool:
        """Tell whether a short frame can be sent at once, whole."""
        return bool(self._poll(select.POLLOUT, 0))

    def receive(self, until: float | None = None) -> Frame:
        """Receive one frame.

        Args:
            until: `time.monotonic()` at which to give up; None waits for ever.

        Raises:
            DeadlineExceeded: Nothing whole came in time; what came is kept.
            CellUnavailable: The other end is gone, or what it sent is not a frame.
        """
        length = _LENGTH.unpack(self._peek(_LENGTH.size, until))[0]
        if length > LARGEST:
            raise CellUnavailable("The cell sent something that is not a frame; open a new session.")
        whole = self._peek(_LENGTH.size + length, until)
        del self._received[: len(whole)]
        return decode(whole[_LENGTH.size :])

    def waiting(self) -> bool:
        """Tell whether something can be received at once."""
        return bool(self._received) or bool(self._poll(select.POLLIN, 0))

    def take_descriptor(self) -> int:
        """Take the one descriptor that came with what was received; -1 if none did."""
        return self._descriptors.pop(0) if self._descriptors else -1

    def _peek(self, size: int, until: float | None) -> bytes:
        while len(self._received) < size:
            self._wait(select.POLLIN, until)
            try:
                if self._takes:
                    data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 1)
                    self._descriptors += descriptors
                else:
                    data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError as error:
                raise CellUnavailable("The cell is gone; open a new session.") from error
            if not data:
                raise CellUnavailable("The cell is gone; open a new session.")
            self._received += data
        return bytes(self._received[:size])

    def _wait(self, event: int, until: float | None) -> None:
        left = None if until is None else max(0.0, until - time.monotonic())
        if not self._poll(event, left):
            raise DeadlineExceeded("The cell did not answer in time.")

    def _poll(self, event: int, seconds: float | None) -> bool:
        poller = select.poll()
        try:
            poller.register(self._socket, event)
        except ValueError as error:
            raise CellUnavailable("The cell was closed; open a new session.") from error
        return bool(poller.poll(None if seconds is None else seconds * 1000))
