"""Moves bundles: up in chunks from where the registry stopped, down as a capsule that opens into memory as it arrives.

Plaintext of a pull is in anonymous memory only. A cut stream is resumed at the segment where it was cut, a few times, with a
growing pause; what was opened already stays opened, because each segment authenticated itself.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms.errors import CapsuleInvalid, Internal, Unavailable
from model_organisms.formats import capsule
from model_organisms.formats.buffers import anonymous, wipe
from model_organisms.formats.streaming import REFUSAL, Layout
from model_organisms.v1 import organisms_pb2

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Iterator

    from model_organisms.cells.seal import Kept
    from model_organisms.client.channel import Channel
    from model_organisms.formats.capsule import CapsuleHeader
    from model_organisms.formats.streaming import Receiver
    from model_organisms.records import Version
    from model_organisms.v1 import organisms_pb2_grpc, records_pb2

CHUNK = 1 << 20
_ATTEMPTS = 6
_PAUSE_S = 0.2
_HEAD_LIMIT = 64 << 10


@dataclass(slots=True)
class Download:
    """A pull under way: what arrived, and what it will be.

    Attributes:
        version: What is pulled.
        grant: Grant the caller named; empty where the registry chooses.
        timeout_s: Deadline of each attempt, in seconds.
        advance: Told how many bytes arrived.
        session: The local session whose cell it goes into; empty where it goes to the caller.
    """

    version: Version
    grant: str
    timeout_s: float
    advance: Callable[[int], None]
    pull: str = ""
    size: int = 0
    arrived: int = 0
    session: str = ""
    receipt: records_pb2.Receipt | None = None
    header: CapsuleHeader | None = None
    head_digest: str = ""
    """SHA-256 of the capsule's head, in hex, as the ledger says it."""
    memory: mmap.mmap | None = None
    _front: bytearray = field(default_factory=bytearray)
    _receiver: Receiver | Kept | None = None
    _head_size: int = 0

    def run(self, channel: Channel, stub: organisms_pb2_grpc.OrganismsServiceStub) -> mmap.mmap:
        """Pull to the end, resuming after cuts.

        Returns:
            The packed bundle, in anonymous memory.

        Raises:
            CapsuleInvalid: What arrived is not a capsule for this person, version and grant.
            Unavailable: It was cut too often.
        """
        self.fetch(channel, stub)
        if self.memory is None:
            raise CapsuleInvalid("The capsule ended before its body; pull again.")
        return self.memory

    def fetch(self, channel: Channel, stub: organisms_pb2_grpc.OrganismsServiceStub) -> None:
        """Do `run`, and leave what arrived where it is."""
        for attempt in range(_ATTEMPTS):
            try:
                self._attempt(channel, stub)
                break
            except Unavailable:
                if attempt == _ATTEMPTS - 1 or not self.pull:
                    self.discard()
                    raise
                time.sleep(_PAUSE_S * 2**attempt)
            except BaseException:
                self.discard()
                raise
        if self._receiver is None:
            raise CapsuleInvalid("The capsule ended before its body; pull again.")
        self._receiver.finish()

    def discard(self) -> None:
        """Overwrite what was opened."""
        if self.memory is not None:
            wipe(self.memory)
            self.memory = None

    def _attempt(self, channel: Channel, stub: organisms_pb2_grpc.OrganismsServiceStub) -> None:
        if self._receiver is not None:
            self.arrived = self._head_size + self._receiver.cut()
        else:
            self._front.clear()
            self.arrived = 0
        request = organisms_pb2.PullVersionRequest(
            name=self.version.name, grant=self.grant, pull=self.pull, offset=self.arrived, session=self.session
        )
        for message in channel.stream(stub.PullVersion, request, timeout_s=self.timeout_s):
            if message.HasField("head"):
                self._begin(message.head)
            else:
                self._take(channel, message.data)
        if self.arrived < self.size:
            raise Unavailable(f"The stream ended {self.size - self.arrived:,} bytes early; it is resumed.")

    def _begin(self, head: organisms_pb2.PullHead) -> None:
        if self.pull and head.pull != self.pull:
            raise CapsuleInvalid("The registry resumed another pull; pull again.")
        self.pull, self.size = head.pull, head.size
        self.grant = self.grant or head.grant
        if head.HasField("receipt"):
            self.receipt = head.receipt

    def _take(self, channel: Channel, data: bytes) -> None:
        self.arrived += len(data)
        self.advance(len(data))
        if self._receiver is not None:
            self._receiver.feed(data)
            return
        self._front += data
        length = capsule.head_length(self._front)
        if length is None or len(self._front) < length:
            if len(self._front) > _HEAD_LIMIT:
                raise CapsuleInvalid("The capsule has no head; pull again.")
            return
        self._open(channel)

    def _open(self, channel: Channel) -> None:
        identity = channel.identity
        self.header, key, self._head_size = capsule.open_head(
            self._front,
            recipient_private=identity.sealing_seed,
            release_public=identity.release_key,
            origin=identity.origin,
            version_digest=self.version.digest,
            grant=self.grant,
            level=self.version.level,
            now=datetime.now(UTC),
            pull=self.pull,
        )
        self.head_digest = hashlib.sha256(self._front[: self._head_size]).hexdigest()
        self._receiver = self._begin_body(self.header, key)
        rest = bytes(self._front[self._head_size :])
        self._front.clear()
        self._receiver.feed(rest)

    def _begin_body(self, header: CapsuleHeader, key: bytes) -> Receiver | Kept:
        self.memory = anonymous(header.plain_size)
        return capsule.body_receiver(header, key, self.memory)


@dataclass(slots=True)
class SealedDownload(Download):
    """A pull that is not opened here: the body stays as it came, and `key` opens it where it goes.

    Attributes:
        key: Key of the body, 32 bytes.
        body: The body, in memory that is sealed once all of it is there.
    """

    key: bytes = field(default=b"", repr=False)
    body: Kept | None = None

    def discard(self) -> None:
        """Let go of what arrived."""
        self.key = b""
        if self.body is not None:
            self.body.close()

    def _begin_body(self, header: CapsuleHeader, key: bytes) -> Receiver | Kept:
        from model_organisms.cells.seal import Kept  # of Linux only

        self.key = key
        self.body = Kept(self.size - self._head_size)
        if Layout(header.plain_size).sealed_size != self.size - self._head_size:
            raise CapsuleInvalid(REFUSAL)
        return self.body


def upload(
    upload_name: str, offset: int, pieces: Iterable[memoryview], advance: Callable[[int], None]
) -> Iterator[organisms_pb2.PublishVersionRequest]:
    """Messages that send a bundle from an offset on.

    Args:
        upload_name: The upload.
        offset: Bytes the registry has.
        pieces: The files, in manifest order.
        advance: Told how many bytes were sent.

    Yields:
        The messages of the stream; one at least, so that a complete upload is finished.
    """
    at, sent = 0, False
    for piece in pieces:
        start = max(0, offset - at)
        for begin in range(start, len(piece), CHUNK):
            data = bytes(piece[begin : begin + CHUNK])
            yield organisms_pb2.PublishVersionRequest(upload=upload_name, offset=at + begin, data=data)
            sent = True
            advance(len(data))
        at += len(piece)
    if not sent:
        yield organisms_pb2.PublishVersionRequest(upload=upload_name, offset=at)
    if offset > at:
        raise Internal("The registry has more bytes than the bundle; publish it under a fresh upload.")
