"""What other systems are told of, and when it is tried again; sending is in `workflows/notifying.py`.

- A letter holds names and a state, never content: what is said and why is for who may read it here.
- One that is not taken is sent again, each time after a longer pause, until it is too old to be news.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from model_organisms.records import Entry

LIFETIME = timedelta(days=3)
"""How long a letter is tried; then it is given up, and kept for the operator to see."""
KEPT = timedelta(days=30)
"""How long one that was given up is kept."""
LONGEST_PAUSE = timedelta(hours=6)
MOST = 10_000
"""Letters that wait for one receiver; beyond, the oldest are given up."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message to one receiver."""

    id: str
    hook: str
    """Name of the receiver in the settings."""
    type: str
    body: bytes
    create_time: datetime
    attempts: int = 0
    next_time: datetime | None = None
    """When it is tried next; None: given up."""
    error: str = ""
    """Why the last attempt failed."""


def body(entry: Entry) -> bytes:
    """The message about an entry of the ledger: what happened, when, to what, by whom, and under which grant."""
    data = {"subject": entry.subject, "actor": entry.actor} | ({"grant": entry.grant} if entry.grant else {})
    when = entry.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return strict_json.canonical({"type": entry.type, "timestamp": when, "data": data})


def next_time(letter: Letter, *, first: timedelta, now: datetime) -> datetime | None:
    """When a letter is tried again that was not taken; None where it is too old by then.

    Args:
        letter: With the attempts made so far, the failed one included.
        first: The pause after the first attempt; each further one is twice as long.
        now: The time of the failure.
    """
    doublings = min(letter.attempts - 1, 32)
    later = now + min(first * 2**doublings, LONGEST_PAUSE)
    return later if later < letter.create_time + LIFETIME else None
