"""One call to a cell, as its owner keeps it: what may come of it, and what has come and waits for its reader.

- The thread that listens to the cell puts frames in and never waits; the thread that asked takes them out.
- Nothing a cell says is believed: `put` refuses what was not asked for, and whoever listens then ends the cell.
- What waits is bounded. A reader who leaves more than `MOST_WAITING` lying loses the rest of the answer; nobody else loses any.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from model_organisms.cells.frames import CANCELLED, CellInfo, Failed, Numbers, Piece
from model_organisms.errors import (
    BY_REASON,
    CellUnavailable,
    DeadlineExceeded,
    InvalidArgument,
    ModelOrganismsError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from model_organisms.cells.frames import Ask, Body, Direct, Directed, Draw

GRACE_S = 5.0
"""A call whose time is over has so long for its last piece, and a killed session's organism to be gone.

A cell listens between two steps of its model, so none is blamed before it has heard of it.
"""
MOST_WAITING = 1 << 20
"""Bytes that may wait for one reader. An honest answer of some 8,000 tokens fits."""
_OVERHEAD = 64
"""Bytes that a piece counts for besides its text."""
_EXTRA_PIECES = 8
"""An engine says one piece a token, and a last one without."""
_ENDS = frozenset({"stop", "length"})
"""How a cell may say that an answer ended; `deadline` and `bytes` are its owner's words, and a failure has a frame of its own."""
_EXCEPTION = re.compile(r"[A-Za-z_]{1,60}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_ADAPTERS = 16
_MOST_WORDS = 300
MOST_REASONS = 4096
"""Bytes of a cell's own words that a session hears of why it could not do what was asked: they are text for no token."""
B = TypeVar("B", bound="Body")


class Words:
    """What a cell may still say to one session in words of its own; the thread that listens counts them."""

    def __init__(self, most: int = MOST_REASONS) -> None:
        """Begin with all of them."""
        self._left = most

    def take(self, words: str) -> bool:
        """Tell whether it may say these; once it may not, it may say none any more."""
        self._left -= len(words.encode())
        return self._left >= 0


class Call(Generic[B]):
    """A call under way.

    Args:
        number: Frames of the call carry it.
        kind: What its frames say.
        judge: Raises `CellUnavailable` for a frame that was not asked for; tells whether the frame is the last. It hears
            whether the call was cancelled.
        believed: Classes of errors that the cell may answer with; None where it may not fail at all.
        words: What it may still say of why it failed; None does not count them.
    """

    def __init__(
        self,
        number: int,
        kind: type[B],
        *,
        judge: Callable[[B, bool], bool] = lambda *_: True,
        believed: tuple[type[ModelOrganismsError], ...] | None = (InvalidArgument,),
        words: Words | None = None,
    ) -> None:
        self.number = number
        self._kind = kind
        self._judge = judge
        self._believed = believed
        self._words = words
        self.due: float | None = None
        """`time.monotonic()` by which its last frame must have come, or the cell counts as hung; None: it has no such time."""
        self.asked = 0.0
        """When the cell was sent what it must answer by then."""
        self.cancelled = False
        """The cell is told to stop it, or was."""
        self.over = False
        """Its last frame has come."""
        self._waiting: deque[B] = deque()
        self._size = 0
        self._error: ModelOrganismsError | None = None
        self._changed = threading.Condition()

    def put(self, body: Body) -> None:
        """Take a frame in; from the thread that listens.

        Raises:
            CellUnavailable: It was not asked for; the cell is not to be believed any more.
        """
        if isinstance(body, Failed) and self._believed is not None:
            self.fail(failure(body, *self._believed, words=self._words))
            self.over = True
            return
        if not isinstance(body, self._kind):
            raise CellUnavailable("it answered with something else")
        last = self._judge(body, self.cancelled)
        with self._changed:
            self.over = last
            if self._error is None:
                size = _size(body)
                if self._size + size > MOST_WAITING:
                    msg = "The answer was not read as it came, and its rest is lost; ask again, and read on."
                    self._error = CellUnavailable(msg)
                else:
                    self._waiting.append(body)
                    self._size += size
            self._changed.notify_all()

    def fail(self, error: ModelOrganismsError) -> None:
        """Have its reader hear of an error, after what waits already; the first one counts."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def silence(self, error: ModelOrganismsError) -> None:
        """Have its reader hear of an error at once, and nothing that waits."""
        with self._changed:
            self._waiting.clear()
            self._error = error
            self._changed.notify_all()

    def take(self, until: float) -> B:
        """Take the next frame out; from the thread that asked.

        Args:
            until: `time.monotonic()` at which to give up.

        Raises:
            DeadlineExceeded: None came in time.
            ModelOrganismsError: The call failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._error, max(0.0, until - time.monotonic()))
            if self._waiting:
                body = self._waiting.popleft()
                self._size -= _size(body)
                return body
            if self._error:
                raise self._error
        raise DeadlineExceeded("The cell did not answer in time.")


def _size(body: Body) -> int:
    return _OVERHEAD + (len(body.text.encode()) if isinstance(body, Piece) else 0)


def drawn(draw: Draw, gone: Callable[[], bool] = lambda: False) -> Callable[[Piece, bool], bool]:
    """Make the judge of a sample: no more tokens than were asked for, one piece a token, no text without one, an end that is one.

    Args:
        draw: What was asked.
        gone: Tells whether the organism was taken out of the cell, or is about to be: that cancels the call too.
    """
    tokens = pieces = 0

    def judge(piece: Piece, cancelled: bool) -> bool:
        nonlocal tokens, pieces
        tokens, pieces = tokens + piece.tokens, pieces + 1
        most, end = draw.parameters.max_tokens, piece.finish_reason
        stopped = end == CANCELLED and (cancelled or gone())
        # Who is stopped gives the text that was held back of tokens drawn before, and draws none for it.
        free = piece.text and not (piece.tokens or (stopped and tokens))
        if tokens > most or pieces > most + _EXTRA_PIECES or free or not (end in {"", *_ENDS} or stopped):
            raise CellUnavailable("it gave what was not asked for")
        return bool(end)

    return judge


def loaded(engine: str) -> Callable[[CellInfo, bool], bool]:
    """Make the judge of a load. Receipts repeat what it says, so it is digests and counts, and the engine as it was before.

    Args:
        engine: What the cell said of it before it met any bundle.
    """

    def judge(info: CellInfo, _: object) -> bool:
        digests = (info.base_digest, info.tokenizer_digest, info.template_digest, *info.adapter_digests)
        if info.engine != engine or len(info.adapter_digests) > _MOST_ADAPTERS or not all(map(_DIGEST.fullmatch, digests)):
            raise CellUnavailable("it gave what was not asked for")
        return True

    return judge


def asked(ask: Ask) -> Callable[[Numbers, bool], bool]:
    """Make the judge of a probe; what shape its answer has, and what it costs, is the workflow's to check."""

    def judge(numbers: Numbers, _: object) -> bool:
        most = ask.inquiry.positions
        if len(numbers.positions) > most or len(numbers.kl) > most:
            raise CellUnavailable("it gave what was not asked for")
        return True

    return judge


def directed(direct: Direct) -> Callable[[Directed, bool], bool]:
    """Make the judge of a direction."""

    def judge(made: Directed, _: object) -> bool:
        if len(made.cosines) != len(direct.sought.compared) or not _DIGEST.fullmatch(made.sha256):
            raise CellUnavailable("it gave what was not asked for")
        return True

    return judge


def failure(failed: Failed, *believed: type[ModelOrganismsError], words: Words | None = None) -> ModelOrganismsError:
    """Turn a cell's failure into an error, if a cell may say that one; its words are cut, cleaned, and counted."""
    said = "".join(character for character in failed.message[:_MOST_WORDS] if character.isprintable())
    kind = BY_REASON.get(failed.reason)
    if kind is Unavailable or (kind is not None and issubclass(kind, believed)):
        heard = words is None or words.take(said)
        return kind(said if heard else "It cannot be done, and the cell has said why as often as one session may hear it.")
    shown = failed.reason if _EXCEPTION.fullmatch(failed.reason) else "unknown reason"
    if words is not None and not words.take(shown):
        shown = "one reason more than a session may hear"
    return CellUnavailable(f"The cell could not do it ({shown}); open a new session.")
