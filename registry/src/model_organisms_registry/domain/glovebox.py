"""What a session whose cell is on its holder's own machine may be, and what its reports may say; the rest is as in `sandbox.py`.

Nobody here can look into that cell. A report binds who made it, and it is held against what was set aside; whether it is true, it
does not prove.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_organisms.errors import BudgetExhausted, Conflict, Denied, InvalidArgument, NotFound
from model_organisms.formats.sampled import PROBE_TOP
from model_organisms.records import Budget, Level, SessionState

from model_organisms_registry.domain.hazard import known
from model_organisms_registry.domain.sandbox import FINISHES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from model_organisms.records import Grant, Session, TokenScore, User, VersionRef

FAILED = "failed"
"""Finish reason of a question of which nothing came."""
RELEASED = "released"
"""Finish reason of a probe whose numbers came."""
UNREPORTED = "unreported"
"""Outcome of a question that was announced, and whose report never came: all that was set aside is spent."""
MOST_BYTES_A_TOKEN = 512
"""No vocabulary has a longer token; more bytes were not drawn in so few."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a local cell holds, as its holder reports it."""

    base_digest: str
    tokenizer_digest: str
    template_digest: str
    adapter_digests: tuple[str, ...]
    modules_applied: int
    engine: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a question to a local cell, as its holder reports it."""

    cell: Claimed
    finish_reason: str
    text: str = ""
    tokens: int = 0
    positions: tuple[tuple[TokenScore, ...], ...] = ()
    kl_to_base: float = 0.0


def claimed_walls(walls: Sequence[str], *, known_walls: Collection[str], needed: Collection[str]) -> tuple[str, ...]:
    """Return the walls that are missing by a holder's own report.

    Args:
        walls: Those that the cell found standing.
        known_walls: Every wall there is.
        needed: Those that every jail has.

    Raises:
        InvalidArgument: A wall that there is not.
    """
    unknown = sorted(set(walls) - set(known_walls))
    if unknown:
        msg = f"There is no wall {unknown[0]!r}; use a client that speaks this registry's version."
        raise InvalidArgument(msg, field="walls")
    return tuple(sorted(set(needed) - set(walls)))


def at_holder(session: Session, level: object) -> Session:
    """Mark a session as one whose cell is on its holder's machine.

    Raises:
        Denied: Weights of CL4 go nowhere; the gate says so too.
    """
    if known(level) >= Level.CL4:
        raise Denied("Weights of a CL4 organism never leave the registry; open a session there.", session=session.name)
    return replace(session, local=True)


def held(session: Session) -> Session:
    """Return a session whose cell is on its holder's machine.

    Raises:
        Conflict: It has its cell at the registry.
    """
    if not session.local:
        raise Conflict("This session has its cell at the registry; sample and probe it there.", session=session.name)
    return session


def can_pull(grant: Grant) -> Grant:
    """Return a grant under which a copy can be pulled into the cell: without one a local session is of no use.

    Raises:
        BudgetExhausted: It has no pull left.
    """
    if grant.budget.minus(grant.spent).pulls < 1:
        raise BudgetExhausted("The grant has no pull left for a cell of your own; ask for another grant.", grant=grant.name)
    return grant


def goes_into(session: Session, *, user: User, grant: Grant, version: VersionRef, now: datetime) -> None:
    """Check that a copy may be pulled into a session's cell.

    Raises:
        NotFound: The session is another's.
        Conflict: It has its cell at the registry, is over, or is on another version or under another grant.
    """
    if session.user != user.name:
        raise NotFound.named(session.name)
    held(session)
    if session.state is not SessionState.OPEN or now >= session.expire_time:
        raise Conflict("The session is over; open a new one.", session=session.name)
    if (session.grant, session.version) != (grant.name, version):
        msg = "The session is on another version, or under another grant; pull what it was opened on."
        raise Conflict(msg, session=session.name)


def reported(report: Report, taken: Budget) -> Budget:
    """Say what a report says was used.

    Raises:
        InvalidArgument: It contradicts itself, or what was set aside.
    """
    size = len(report.text.encode())
    values = sum(2 * len(position) for position in report.positions) + 1 if report.positions else 0
    used = Budget(tokens=report.tokens, output_bytes=size, probe_values=values)
    over = taken.minus(used).exceeded()
    if over:
        raise InvalidArgument(f"The report has more {', '.join(over)} than were set aside; report what was drawn.", field=over[0])
    if size > report.tokens * MOST_BYTES_A_TOKEN:
        raise InvalidArgument("The report has more text than its tokens hold; report all that were drawn.", field="tokens")
    numbers = [report.kl_to_base, *(score.logprob for position in report.positions for score in position)]
    if not all(map(math.isfinite, numbers)) or any(len(position) > PROBE_TOP for position in report.positions):
        msg = f"A probe reports at most {PROBE_TOP} scores a position, each a finite number."
        raise InvalidArgument(msg, field="positions")
    nothing = report.finish_reason == FAILED
    probing = taken.probe_values > 0
    # The outcome in the ledger is this word: others are the registry's to say, of what was lost, unreported or refused.
    possible = {FAILED, RELEASED} if probing else {FAILED, *FINISHES}
    if report.finish_reason not in possible:
        raise InvalidArgument(f"No answer ends like that; report one of {', '.join(sorted(possible))}.", field="finish_reason")
    if nothing and used != Budget(tokens=used.tokens):
        raise InvalidArgument("A question of which nothing came reports neither text nor numbers.", field="finish_reason")
    if probing and not nothing and len(report.positions) != 1:
        raise InvalidArgument("A probe reports one position.", field="positions")
    return used
