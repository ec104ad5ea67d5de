"""Who may still have a copy, and what they owe when they may no longer: rules over copies, as the catalog has them.

- A copy may be held while the grant it was pulled under stands and its version is not withdrawn; a quarantine takes nothing away
  that was pulled before.
- After that its destruction is to be attested within the deployment's time. Who is late gets no new grant to pull.
- A renewed grant is another grant: what was pulled under the old one is destroyed, and pulled again.
- A statement counts for exactly the copies it names, and it names all that are left under one grant of one version.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import Conflict, DestructionOverdue, InvalidArgument
from model_organisms.records import GrantState, Holding, HoldingState

from model_organisms_registry.domain.organisms import REASON_LIMIT, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from model_organisms.formats.destruction import Destruction
    from model_organisms.records import VersionRef

CLOCK_SKEW = timedelta(minutes=5)
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Copy:
    """One pull, with all that decides whether its user may still have it."""

    pull: str
    user: str
    organisation: str
    version: VersionRef
    grant: str
    grant_expires: datetime
    revoke_time: datetime | None
    withdraw_time: datetime | None
    pull_time: datetime
    destruction: str
    destroy_time: datetime | None

    def ended(self, now: datetime) -> datetime | None:
        """Since when it may no longer be held; None while it may."""
        ends = (self.grant_expires, self.revoke_time, self.withdraw_time)
        return min((end for end in ends if end is not None and end <= now), default=None)


def holding(copy: Copy, *, now: datetime, grace: timedelta) -> Holding:
    """Say how it stands with a copy at a time.

    Args:
        copy: The copy.
        now: The time.
        grace: How long after the end its destruction may be attested.
    """
    ended = copy.ended(now)
    due = ended + grace if ended else None
    state = HoldingState.HELD
    if copy.destruction:
        state = HoldingState.DESTROYED
    elif due is not None:
        state = HoldingState.DUE if now < due else HoldingState.OVERDUE
    grant_state = GrantState.ACTIVE
    if copy.revoke_time is not None:
        grant_state = GrantState.REVOKED
    elif now >= copy.grant_expires:
        grant_state = GrantState.EXPIRED
    return Holding(
        pull=copy.pull,
        user=copy.user,
        organisation=copy.organisation,
        version=copy.version,
        grant=copy.grant,
        grant_state=grant_state,
        pull_time=copy.pull_time,
        state=state,
        due_time=due,
        destruction=copy.destruction,
        destroy_time=copy.destroy_time,
    )


def check(stated: Destruction, copies: Sequence[Copy], *, now: datetime) -> None:
    """Hold a statement against the copies it is about.

    Args:
        stated: What the holder signed; the caller has verified the signature with the holder's own key.
        copies: All copies under the grant.
        now: The call's time.

    Raises:
        Conflict: Nothing is left to attest, or it names other copies than are left.
        InvalidArgument: It was done in the future, before the last copy left, or in words that are not plain.
    """
    left = [copy for copy in copies if copy.version == stated.version and not copy.destruction]
    if not left:
        msg = f"Nothing is left to attest of {stated.version.name} under this grant; `mo access outstanding` lists what is."
        raise Conflict(msg, grant=stated.grant)
    if set(stated.pulls) != {copy.pull for copy in left}:
        raise Conflict("The statement names other copies than you hold under this grant; make it anew.", grant=stated.grant)
    plain(stated.how, "how", limit=REASON_LIMIT)
    if not max(copy.pull_time for copy in left) - CLOCK_SKEW <= stated.time <= now + CLOCK_SKEW:
        raise InvalidArgument("What was destroyed was so after the last copy left and before now; state that time.", field="time")


def check_owing(copies: Iterable[Copy], *, user: str, now: datetime, grace: timedelta) -> None:
    """Refuse a new grant to pull to who is late with an attestation.

    Raises:
        DestructionOverdue: They are; the message names the grants.
    """
    late = {copy.grant for copy in copies if holding(copy, now=now, grace=grace).state is HoldingState.OVERDUE}
    if late:
        shown = ", ".join(sorted(late)[:_SHOWN])
        msg = (
            f"{user} has not attested in time that the copies under {shown} are destroyed, and gets no new grant to pull "
            "before that: destroy them, then `mo access attest-destroyed GRANT`."
        )
        raise DestructionOverdue(msg, user=user, grants=shown)
