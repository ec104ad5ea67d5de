"""What a grant covers, until when, and how it is taken back; how one comes to be is in `access.py`.

- A grant covers the versions it names, by digest: other bytes under the same name are not covered.
- It covers its rung and those below, for its user, until its time is over or it is taken back.
- It does not cover a version that was raised above the level its approvals answered for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, Denied, GrantExpired, GrantRequired, GrantRevoked, InvalidArgument
from model_organisms.formats.sampled import PROBE_TOP
from model_organisms.records import Grant, GrantState, Level, Rung, VersionRef

from model_organisms_registry.domain.hazard import known

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from model_organisms.records import Budget, Purpose

REASON_LIMIT = 2000
PROBE_VALUES = 2 * PROBE_TOP + 1
"""Numbers that a probe of one position releases: ids, log-probabilities and the divergence. Nothing costs fewer."""


def state_of(grant: Grant, *, now: datetime) -> GrantState:
    """Read a grant's state at a time; expiry is nowhere stored."""
    if grant.state is GrantState.ACTIVE and now >= grant.expire_time:
        return GrantState.EXPIRED
    return grant.state


def standing(grant: Grant, *, now: datetime) -> Grant:
    """Return a grant that is active.

    Raises:
        GrantRevoked: It was taken back.
        GrantExpired: Its time is over.
    """
    state = state_of(grant, now=now)
    if state is GrantState.REVOKED:
        why = f" ({grant.reason})" if grant.reason else ""
        raise GrantRevoked(f"The grant was taken back{why}; write to its reviewers before you ask again.", grant=grant.name)
    if state is GrantState.EXPIRED:
        msg = f"The grant expired at {grant.expire_time:%Y-%m-%d %H:%M} UTC; renew it with client.access.renew('{grant.name}')."
        raise GrantExpired(msg, grant=grant.name)
    return grant


def names_version(grant: Grant, version: VersionRef) -> bool:
    """Whether a grant names these very bytes."""
    return version in grant.versions


def nearest(grants: Iterable[Grant], version: VersionRef, *, user: str, level: object, rung: Rung, now: datetime) -> Grant | None:
    """Find the grant that decides: one that covers, or else the one whose shortcoming is worth telling.

    Args:
        grants: Grants of the user, in any order and state.
        version: What is to be used.
        user: Who wants to.
        level: The version's effective level now.
        rung: How closely.
        now: The call's time.

    Returns:
        Of those that name the version: one that covers it (with something left before one that is spent, then the one that
        lasts longest), else the newest of a sufficient rung, else the active one that reaches furthest, else None.
    """
    named = [grant for grant in grants if grant.user == user and names_version(grant, version)]
    reaching = [grant for grant in named if grant.rung >= rung]
    active = [grant for grant in named if state_of(grant, now=now) is GrantState.ACTIVE]
    covering = [grant for grant in active if grant.rung >= rung and grant.level >= known(level)]
    if covering:
        return max(covering, key=lambda grant: (_has_left(grant, rung), grant.expire_time, grant.name))
    if reaching:
        return max(reaching, key=lambda grant: (grant.create_time, grant.name))
    return max(active, key=lambda grant: (grant.rung, grant.name), default=None)


def offered(grants: Iterable[Grant], *, grant: str, purpose: Purpose, now: datetime) -> tuple[Grant, ...]:
    """Those of somebody's grants that a session may be opened under.

    Args:
        grants: All of them.
        grant: The one that was named; empty for any.
        purpose: What the session is for.
        now: The call's time.

    Returns:
        The named one alone; or the active ones for that purpose; or where there is none, all, so that one of them says why not.
    """
    held = tuple(one for one in grants if grant in {"", one.name})
    active = (one for one in held if one.purpose is purpose and state_of(one, now=now) is GrantState.ACTIVE)
    return tuple(active) or held


def speaks(left: Budget, rung: Rung) -> bool:
    """Whether anything can still be said with what is left: a token of text, or where the rung gives numbers, one probe."""
    return (left.tokens > 0 and left.output_bytes > 0) or (rung >= Rung.PROBE and left.probe_values >= PROBE_VALUES)


def _has_left(grant: Grant, rung: Rung) -> bool:
    left = grant.budget.minus(grant.spent)
    return left.pulls > 0 if rung is Rung.PULL else left.sessions > 0 and speaks(left, grant.rung)


def require(grants: Iterable[Grant], version: VersionRef, *, user: str, level: object, rung: Rung, now: datetime) -> Grant:
    """Return the grant that covers a rung on a version.

    Args:
        grants: Grants of the user, in any order and state.
        version: What is to be used.
        user: Who wants to.
        level: The version's effective level now.
        rung: How closely.
        now: The call's time.

    Raises:
        GrantRevoked: The one that would cover it was taken back.
        GrantExpired: Its time is over.
        GrantRequired: There is none, it stops at a lower rung, or the level was raised since.
    """
    found = nearest(grants, version, user=user, level=level, rung=rung, now=now)
    error = shortcoming(found, version, level=level, rung=rung, now=now)
    if error:
        raise error
    # Without a shortcoming there is a grant.
    return found  # type: ignore[return-value]


def shortcoming(grant: Grant | None, version: VersionRef, *, level: object, rung: Rung, now: datetime) -> Denied | None:
    """Say why a grant does not cover a rung on a version and what to do; None where it does."""
    wanted = rung.name.lower()
    ask = f"ask with client.access.request('{version.name}', rung='{wanted}', ...) or `mo access request`"
    if names.in_game(version.name):
        ask = "a seat in a game gives what the game's terms say, and nothing else"
    facts = {"version": version.name, "rung": wanted}
    if grant is None:
        return GrantRequired(f"You have no grant for {wanted} on {version.name}; {ask}.", **facts)
    try:
        standing(grant, now=now)
    except (GrantRevoked, GrantExpired) as error:
        return error
    if grant.rung < rung:
        held = f"Your grant on {version.name} gives {grant.rung.name.lower()}"
        return GrantRequired(f"{held}, not {wanted}; {ask}.", grant=grant.name, **facts)
    if grant.level < known(level):
        msg = (
            f"{version.name} was raised to {known(level).name} after your grant was approved for {Level(grant.level).name}; "
            f"{ask.replace('ask with', 'ask again with')}."
        )
        return GrantRequired(msg, grant=grant.name, **facts)
    return None


def revoke(grant: Grant, *, reason: str, now: datetime) -> Grant:
    """Take a grant back. Whoever may (the gate says), the reason is read by its user.

    Raises:
        Conflict: It is over already.
        InvalidArgument: No reason, or one that is too long.
    """
    state = state_of(grant, now=now)
    if state is not GrantState.ACTIVE:
        raise Conflict(f"The grant is {state.value} already; there is nothing to take back.", grant=grant.name)
    if not 0 < len(reason.strip()) <= REASON_LIMIT:
        raise InvalidArgument(f"Say why, in 1 to {REASON_LIMIT} characters; its user reads it.", field="reason")
    return replace(grant, state=GrantState.REVOKED, reason=reason.strip())
