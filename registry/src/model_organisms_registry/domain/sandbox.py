"""When a session may open, what each thing in it costs, and how it ends; cells and clocks are elsewhere.

- A session never has more than its grant has left, and never outlives it.
- Whatever is released is counted: tokens, bytes of text, numbers. A cost is taken before the work, the rest given back after.
- The server chooses every seed. Nobody biases logits: there is no such parameter, and there will be none.
- A session ends once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import (
    BudgetExhausted,
    CellUnavailable,
    Conflict,
    GrantRequired,
    GrantRevoked,
    InvalidArgument,
    JailMissing,
    ModelOrganismsError,
    Quarantined,
    Suspended,
    Withdrawn,
)
from model_organisms.records import (
    BUDGET_FIELDS,
    Budget,
    Level,
    Message,
    Purpose,
    Rung,
    SamplingParameters,
    Session,
    SessionState,
)

from model_organisms_registry.domain.grants import shortcoming, speaks
from model_organisms_registry.domain.grants import standing as grant_standing
from model_organisms_registry.domain.hazard import HazardTable, level_rules
from model_organisms_registry.domain.organisms import served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from model_organisms.records import AdapterFacts, Grant, User, VersionRef, VersionState

LONGEST = timedelta(hours=8)
DEFAULT_DURATION = timedelta(hours=1)

MOST_TOKENS = 8192
MOST_STOPS = 8
LONGEST_STOP = 64
HOTTEST = 10.0
MOST_TOP_K = 1_000_000
MOST_MESSAGES = 256
MOST_PROMPT_BYTES = 256 * 1024
SPEAKERS = frozenset({"system", "user", "assistant"})

FINISHES = frozenset({"stop", "length", "bytes", "deadline", "cancelled"})
"""How an answer ends that no error ended."""

FALLEN: dict[type[ModelOrganismsError], str] = {
    CellUnavailable: "the level was raised",
    GrantRequired: "the level was raised",
    GrantRevoked: "the grant was revoked",
    JailMissing: "the level was raised",
    Quarantined: "the version was quarantined",
    Suspended: "the account was suspended",
    Withdrawn: "the version was withdrawn",
}
"""What a session's end says of what it rested on, by the error that its user is shown."""
BYTES_A_TOKEN = 16
"""Bytes of text reserved for each token asked for; a sample stops when its bytes are out, whatever tokens are left."""
SEED_BITS = 63
_SHARED_PRODUCTS, _SHARED_RANK, _SHARED_BYTES = 10**10, 512, 1 << 30
"""Most that an organism of a shared cell may have: rank 32 on every linear layer of a model of 14 billion numbers is below."""


def open_session(
    name: str,
    *,
    user: User,
    version: VersionRef,
    state: VersionState,
    level: Level,
    grant: Grant,
    purpose: Purpose,
    now: datetime,
    budget: Budget | None = None,
    duration: timedelta | None = None,
    walls: Sequence[str] = (),
    missing_walls: Sequence[str] = (),
    table: HazardTable | None = None,
) -> Session:
    """Open a session under a grant. The gate has said that this grant covers this version.

    Args:
        name: Name of the new session.
        user: Who opens it; the grant is theirs.
        version: What is sampled.
        state: The version's state, read in this transaction.
        level: Its effective level.
        grant: Read in this transaction, so that what it has left is true.
        purpose: Must be the grant's.
        now: The call's time.
        budget: What the session may spend; by default, and at most, what the grant has left.
        duration: How long it may last; at most eight hours, and never past the grant.
        walls: Walls of the cell that were found standing.
        missing_walls: Walls that were not.
        table: Where the deployment has tightened the hazard table.

    Raises:
        GrantRequired: The grant is another's, or for another purpose.
        BudgetExhausted: The grant has nothing left to open a session with.
        JailMissing: A wall is missing, and the level needs them all.
        InvalidArgument: A negative budget or a duration out of bounds.
    """
    if grant.user != user.name:
        raise GrantRequired("A session is opened by the person the grant was given to; ask for one of your own.")
    if grant.purpose is not purpose:
        msg = f"The grant is for {grant.purpose.value}, not {purpose.value}; open the session for that, or ask for another grant."
        raise GrantRequired(msg, grant=grant.name)
    served(state, version.name)
    grant_standing(grant, now=now)
    check_walls(level, missing_walls, table=table)
    wanted = DEFAULT_DURATION if duration is None else duration
    if not timedelta(0) < wanted <= LONGEST:
        hours = LONGEST // timedelta(hours=1)
        raise InvalidArgument(f"A session lasts more than 0 s and at most {hours} h.", field="duration_s")
    return Session(
        name=name,
        user=user.name,
        version=version,
        grant=grant.name,
        purpose=purpose,
        budget=_share(grant, budget),
        spent=Budget(),
        state=SessionState.OPEN,
        walls=tuple(walls),
        create_time=now,
        expire_time=min(grant.expire_time, now + wanted),
    )


def _share(grant: Grant, wanted: Budget | None) -> Budget:
    left = grant.budget.minus(grant.spent)
    if left.sessions < 1:
        raise BudgetExhausted("The grant has no sessions left; renew it, or ask for more.", grant=grant.name)
    if wanted is not None and wanted.exceeded():
        raise InvalidArgument(f"A budget cannot be negative: {', '.join(wanted.exceeded())}.", field="budget")
    asked = wanted or left
    share = Budget(
        tokens=min(asked.tokens, left.tokens),
        output_bytes=min(asked.output_bytes, left.output_bytes),
        probe_values=min(asked.probe_values, left.probe_values) if grant.rung >= Rung.PROBE else 0,
    )
    if not speaks(share, grant.rung):
        raise BudgetExhausted("The session would have nothing to spend; renew the grant, or ask for more.", grant=grant.name)
    return share


def check_walls(level: object, missing: Sequence[str], *, table: HazardTable | None = None) -> None:
    """Refuse to serve above CL1 from a cell that lacks a wall.

    Raises:
        JailMissing: Never a silent downgrade: the operator must repair the jail.
    """
    if missing and level_rules(level, table=table).jail_required:
        msg = f"The sandbox lacks {', '.join(missing)}, and this level needs every wall; ask the operator to install bubblewrap."
        raise JailMissing(msg, missing=",".join(missing)[:200])


def shares(level: Level) -> bool:
    """Tell whether sessions at this level may be in one cell with others: of the same base model, and of this level."""
    return level < Level.CL3


def slow_to_load(facts: Sequence[AdapterFacts], *, size: int) -> bool:
    """Tell whether a version would keep those it shares a cell with waiting for more than about a second as it comes.

    A cell hashes, inspects and copies a bundle between two steps of its model. Norms are products of a module's factors, which
    take rank times parameters multiplications, of which a core does some 3e10 a second.

    Args:
        facts: Its adapters.
        size: Bytes of its bundle, training checkpoints included.
    """
    ranks = [max(fact.ranks, default=0) for fact in facts]
    products = sum(rank * fact.parameters for rank, fact in zip(ranks, facts, strict=True))
    return products > _SHARED_PRODUCTS or sum(ranks) > _SHARED_RANK or size > _SHARED_BYTES


def check_company(level: Level, *, alone: bool) -> None:
    """Refuse to go on where a session shares its cell and its level has none of that.

    Raises:
        CellUnavailable: The level was raised meanwhile; a new session gets a cell of its own.
    """
    if not alone and not shares(level):
        raise CellUnavailable(f"At {level.name} a session has its cell alone, and this one shares it; open a new session.")


def standing(session: Session, *, grant: Grant, state: VersionState, level: Level, now: datetime) -> None:
    """Check that a session may go on; asked before every sample and while one streams.

    What it rests on is looked at before the session itself: it ends because of that, and its user is told of that.

    Raises:
        Withdrawn: The version was withdrawn meanwhile.
        Quarantined: It was set aside meanwhile.
        GrantRevoked: The grant was taken back meanwhile.
        GrantExpired: Its time is over.
        GrantRequired: The level was raised above what the grant was approved for.
        BudgetExhausted: The session has ended because it was spent.
        Conflict: It has ended otherwise, or its time is over.
    """
    served(state, session.version.name)
    if error := shortcoming(grant, session.version, level=level, rung=Rung.SAMPLE, now=now):
        raise error
    if session.state is SessionState.EXHAUSTED:
        raise BudgetExhausted("The session has spent its budget; open another, or ask for a new grant.", session=session.name)
    if session.state is not SessionState.OPEN:
        raise Conflict(f"The session is {session.state.value}; open a new one.", session=session.name)
    if now >= session.expire_time:
        raise Conflict("The session's time is over; open a new one.", session=session.name)


def fallen(error: ModelOrganismsError) -> str:
    """Say what a session rested on and no longer does; whoever notices first, who took it back or who looks on, says the same."""
    return next((reason for kind, reason in FALLEN.items() if isinstance(error, kind)), error.message)


def due(session: Session, *, now: datetime, last_used: datetime, idle: timedelta, busy: bool = False) -> SessionState | None:
    """Name the end that has come for an open session, if one has; the registry's own clockwork asks this.

    Args:
        session: As its row is now.
        now: The time.
        last_used: When it was last asked anything.
        idle: It expires when nothing happens in it for so long: a cell holds plaintext weights.
        busy: A question is under way: it is not idle, and what looks spent may be given back.
    """
    if session.state is not SessionState.OPEN:
        return None
    if now >= session.expire_time or (not busy and now >= last_used + idle):
        return SessionState.EXPIRED
    if busy:
        return None
    # A session of a grant without probes has no numbers in its budget, so the highest rung asks the right question of both.
    return None if speaks(session.budget.minus(session.spent), Rung.PULL) else SessionState.EXHAUSTED


def end(session: Session, state: SessionState, *, reason: str = "") -> Session:
    """End an open session, once.

    Raises:
        Conflict: It has ended already.
        InvalidArgument: `open` is not an end; or a kill without a reason.
    """
    if state is SessionState.OPEN:
        raise InvalidArgument("A session that has ended is not opened again; open a new one.")
    if session.state is not SessionState.OPEN:
        raise Conflict(f"The session is {session.state.value} already.", session=session.name)
    if state is SessionState.KILLED and not reason.strip():
        raise InvalidArgument("Say why the session is stopped; its user reads it.", field="reason")
    return replace(session, state=state, reason=reason.strip())


def check_parameters(parameters: SamplingParameters) -> SamplingParameters:
    """Return sampling parameters that are in bounds and leave the seed to the server.

    Raises:
        InvalidArgument: One is out of bounds, or a seed was chosen.
    """
    if parameters.seed is not None:
        raise InvalidArgument("The server chooses the seed and writes it in the receipt; leave it out.", field="seed")
    bounds = {
        "max_tokens": 1 <= parameters.max_tokens <= MOST_TOKENS,
        "temperature": math.isfinite(parameters.temperature) and 0 <= parameters.temperature <= HOTTEST,
        "top_p": math.isfinite(parameters.top_p) and 0 < parameters.top_p <= 1,
        "top_k": 0 <= parameters.top_k <= MOST_TOP_K,
        "stop": len(parameters.stop) <= MOST_STOPS and all(0 < len(text) <= LONGEST_STOP for text in parameters.stop),
    }
    for field, fits in bounds.items():
        if not fits:
            msg = (
                f"{field} is out of bounds; take max_tokens 1 to {MOST_TOKENS}, temperature 0 to {HOTTEST:g}, "
                f"top_p above 0 to 1, top_k 0 to {MOST_TOP_K}, at most {MOST_STOPS} stops of 1 to {LONGEST_STOP} characters."
            )
            raise InvalidArgument(msg, field=field)
    return parameters


def check_messages(messages: Sequence[Message], *, many: bool = False) -> int:
    """Check a conversation and return its size in bytes; of many, all together.

    Raises:
        InvalidArgument: Empty, too long, or with an unknown speaker.
    """
    size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
    if not 1 <= len(messages) <= (MOST_MESSAGES * 128 if many else MOST_MESSAGES) or size > MOST_PROMPT_BYTES:
        msg = f"A conversation has 1 to {MOST_MESSAGES} messages and at most {MOST_PROMPT_BYTES} bytes."
        raise InvalidArgument(msg, field="messages")
    strangers = sorted({message.role for message in messages} - SPEAKERS)
    if strangers:
        raise InvalidArgument(f"A message is by one of {', '.join(sorted(SPEAKERS))}.", field="messages")
    return size


def sample_cost(parameters: SamplingParameters, left: Budget) -> Budget:
    """What to take before a sample: as much as it may use, within what is left.

    Args:
        parameters: Checked.
        left: What the session has left.

    Returns:
        Tokens and bytes; generation stops at whichever runs out first, and the rest is given back (`settle`).

    Raises:
        BudgetExhausted: There is not a token or not a byte left.
    """
    tokens = min(parameters.max_tokens, left.tokens)
    cost = Budget(tokens=tokens, output_bytes=min(tokens * BYTES_A_TOKEN, left.output_bytes))
    if cost.tokens < 1 or cost.output_bytes < 1:
        field = "tokens" if cost.tokens < 1 else "output_bytes"
        raise BudgetExhausted(f"The session has no {field} left; open another, or ask for a new grant.", field=field)
    return cost


def affordable(cost: Budget, left: Budget) -> Budget:
    """Return a cost that is within what is left.

    Raises:
        BudgetExhausted: It is not.
    """
    spend(left, Budget(), cost)
    return cost


def settle(taken: Budget, used: Budget) -> Budget:
    """What to give back after the work.

    Raises:
        BudgetExhausted: More was used than was taken: the caller must not release it.
    """
    rest = taken.minus(used)
    over = rest.exceeded()
    if over:
        raise BudgetExhausted(f"More {', '.join(over)} came out than was set aside; nothing of it is released.", field=over[0])
    return rest


def spend(budget: Budget, spent: Budget, cost: Budget) -> Budget:
    """Add a cost to what is spent.

    Returns:
        The new sum, never above the budget in any field.

    Raises:
        BudgetExhausted: It would be above; the message names the fields.
        InvalidArgument: A negative cost.
    """
    if any(getattr(cost, field) < 0 for field in BUDGET_FIELDS):
        raise InvalidArgument("A cost is never negative; give back with `settle`.")
    total = spent.plus(cost)
    over = budget.minus(total).exceeded()
    if over:
        msg = f"The budget has too little left of {', '.join(over)}; ask for less at once, or for a new grant."
        raise BudgetExhausted(msg, field=over[0])
    return total
