"""A watch that outlasts its looks: the registry ends each call after a while, and the next goes on where it ended."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from model_organisms.errors import DeadlineExceeded
from model_organisms.records import SessionState, UtteranceKind
from model_organisms.v1 import sandbox_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_organisms.records import Session, Utterance

LOOK_S = 1800.0


def followed(
    look: Callable[[sandbox_pb2.WatchSessionRequest, float], Iterator[Utterance]],
    state: Callable[[], Session],
    name: str,
    *,
    only_new: bool,
    timeout_s: float | None,
) -> Iterator[Utterance]:
    """Look again and again, until a session has ended.

    Args:
        look: One call, for at most so many seconds.
        state: Reads the session.
        name: Its name.
        only_new: Leave out what was said before the first look.
        timeout_s: How long in all, in seconds; None is until its end.
    """
    request = sandbox_pb2.WatchSessionRequest(name=name, follow=True, only_new=only_new)
    until = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
    over = False
    while (left := min(LOOK_S, until - time.monotonic())) > 0:
        ended = False
        with suppress(DeadlineExceeded):
            for told in look(request, left):
                request.after = told.ledger_index
                ended |= told.kind is UtteranceKind.END
                yield told
            if ended or over:
                return
        # A look that was cut off may have missed the end: who finds that the session is over looks once more.
        over = over or state().state is not SessionState.OPEN
