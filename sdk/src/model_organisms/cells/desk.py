"""The cell's own end of its socket: what it has to say waits here, so that it always goes on listening.

A cell that waited to be read before it read would stand still with a registry that does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.cells.channel import packed
from model_organisms.cells.frames import Frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.cells.channel import Channel
    from model_organisms.cells.frames import Body

_FULL = 1 << 20
"""With so many bytes unread the model makes no further step."""


class Desk:
    """Frames in and out of a process with one thread."""

    def __init__(self, channel: Channel) -> None:
        """Take the channel over."""
        self._channel = channel
        self._unsent = bytearray()

    @property
    def full(self) -> bool:
        """Tell whether the registry is far behind with reading."""
        return len(self._unsent) >= _FULL

    def say(self, body: Body, call: int = 0) -> None:
        """Say this when there is room."""
        self._unsent += packed(Frame(body, call))
        self._send()

    def heard(self, *, wait: bool) -> Iterator[Frame]:
        """Give the frames that are here.

        Args:
            wait: For the first, or for room to send, while there is nothing else to do.

        Raises:
            CellUnavailable: The registry hung up.
        """
        self._send()
        if wait:
            self._channel.idle(seconds=None, sending=bool(self._unsent))
            self._send()
        while self._channel.waiting():
            yield self._channel.receive()

    def descriptor(self) -> int:
        """Take the descriptor that came with the last frame; -1 if none did."""
        return self._channel.take_descriptor()

    def _send(self) -> None:
        while self._unsent and (sent := self._channel.offer(self._unsent)):
            del self._unsent[:sent]
