"""How access is asked for, and the face of its rules: decisions are in `approvals.py`, what a grant covers in `grants.py`.

- Only a pending request moves, and only before it lapses.
- A request binds its versions by digest, and answers for their level of the moment it was asked or amended.
- What is asked for is bounded: text to judge it by, an end, and budgets. It fits what the owners ask of their users.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, Denied, GrantRevoked, InvalidArgument
from model_organisms.records import (
    Budget,
    Grant,
    GrantState,
    Level,
    Purpose,
    Request,
    RequestState,
    Rung,
    Stated,
    User,
)

from model_organisms_registry.domain import purposes
from model_organisms_registry.domain.approvals import complete, counted, grant_from, pending, review, settled
from model_organisms_registry.domain.budgets import most_budget, within
from model_organisms_registry.domain.grants import nearest, require, revoke, shortcoming, standing, state_of
from model_organisms_registry.domain.hazard import TABLE, HazardTable
from model_organisms_registry.domain.terms import conditions, filled, smallest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from model_organisms_registry.domain.organisms import Subject

__all__ = [
    "amend",
    "complete",
    "counted",
    "grant_from",
    "lapse",
    "nearest",
    "open_request",
    "pending",
    "reapply",
    "renew",
    "renewable",
    "require",
    "review",
    "revoke",
    "settled",
    "shortcoming",
    "standing",
    "state_of",
    "withdraw",
]
"""The whole of access, whichever of the three files it is written in."""

PENDING_LIFETIME = timedelta(days=30)
MOST_VERSIONS = 64
_NOTHING = Stated()


def open_request(
    name: str,
    *,
    requester: User,
    subjects: Sequence[Subject],
    rung: Rung,
    purpose: Purpose,
    justification: str,
    now: datetime,
    need: str = "",
    budget: Budget | None = None,
    duration: timedelta | None = None,
    stated: Stated = _NOTHING,
    previous: str = "",
    table: HazardTable = TABLE,
) -> Request:
    """Ask for a rung on versions for a purpose.

    Where the table demands no approval the request is complete as it is: the caller turns it into a grant at once.

    Args:
        name: Name of the new request.
        requester: Who asks.
        subjects: The versions as they stand now; the request binds their digests.
        rung: How closely.
        purpose: What for.
        justification: Why; a sentence at least from CL2 on.
        now: The call's time.
        need: Why text and numbers are not enough, where weights are asked for.
        budget: What may be spent; by default what the level and the rung give.
        duration: How long the grant shall last; by default 30 days, or the longest that level and conditions permit.
        stated: What the requester states of their work; a statement that notes its time already is kept as it is.
        previous: The request that this one asks again.
        table: Where the deployment has tightened the hazard table.

    Returns:
        A pending request, revision 1.

    Raises:
        InvalidArgument: No or too many versions, a text that is too short, a budget or a duration out of bounds.
        Withdrawn: One of the versions is.
        Denied: The table forbids this rung at this level.
        PurposeRefused: It does not fit what an owner asks.
        EvidenceExpired: What is stated ends before the grant would.
    """
    if rung is Rung.DESCRIBE:
        raise InvalidArgument("Describing needs no grant; ask for sample, probe or pull.", field="rung")
    refs = tuple(subject.ref for subject in subjects)
    if not 1 <= len(refs) <= MOST_VERSIONS or len({ref.name for ref in refs}) != len(refs):
        raise InvalidArgument(f"Ask for 1 to {MOST_VERSIONS} different versions at once.", field="versions")
    draft = Request(
        name=names.check("request", name),
        requester=requester.name,
        organisation=requester.organisation,
        versions=refs,
        rung=rung,
        level=Level.CL4,
        purpose=Purpose(purpose),
        justification=justification,
        need=need,
        budget=Budget(),
        duration_s=0,
        state=RequestState.PENDING,
        create_time=now,
        expire_time=now + PENDING_LIFETIME,
        stated=stated if stated.assert_time else purposes.state(stated, now=now),
        previous=previous,
        state_time=now,
    )
    return filled(draft, subjects, budget=budget, duration=duration, now=now, table=table)


def amend(
    request: Request,
    *,
    revision: int,
    subjects: Sequence[Subject],
    now: datetime,
    justification: str | None = None,
    need: str | None = None,
    budget: Budget | None = None,
    duration: timedelta | None = None,
    stated: Stated | None = None,
    table: HazardTable = TABLE,
) -> Request:
    """Change a pending request; approvals given so far are void, and its clock starts again.

    Args:
        request: As it stands.
        revision: The revision the caller saw.
        subjects: Its versions as they stand now, in its order; the request then answers for their level of today.
        now: The call's time.
        justification: A new one, or None for the same.
        need: A new one, or None for the same.
        budget: A new one, or None for the same.
        duration: A new one, or None for the same.
        stated: What is stated now, or None for the same, from the same time.
        table: Where the deployment has tightened the hazard table.

    Raises:
        Conflict: It is decided, lapsed, or was changed since the caller saw it; or one of the versions is not the one it names.
        InvalidArgument: As for `open_request`, as are the refusals.
    """
    pending(request, now=now)
    if request.revision != revision:
        msg = f"The request is at revision {request.revision}, not {revision}; read it again before you change it."
        raise Conflict(msg, request=request.name)
    if tuple(subject.ref for subject in subjects) != request.versions:
        raise Conflict("The request names other bytes than there are now; withdraw it and ask again.", request=request.name)
    draft = replace(
        request,
        justification=request.justification if justification is None else justification,
        need=request.need if need is None else need,
        revision=request.revision + 1,
        approvals=(),
        expire_time=now + PENDING_LIFETIME,
        state_time=now,
        stated=request.stated if stated is None else purposes.state(stated, now=now),
    )
    return filled(
        draft,
        subjects,
        budget=budget or request.budget,
        duration=duration or timedelta(seconds=request.duration_s),
        now=now,
        table=table,
    )


def withdraw(request: Request, *, now: datetime) -> Request:
    """Take a pending request back. Only its requester may: the gate says so.

    Raises:
        Conflict: It is decided or lapsed.
    """
    return replace(pending(request, now=now), state=RequestState.WITHDRAWN, state_time=now)


def lapse(request: Request, *, now: datetime) -> Request:
    """Return the request as it stands at a time: one that nobody decided in time has expired."""
    if request.state is RequestState.PENDING and now >= request.expire_time:
        return replace(request, state=RequestState.EXPIRED, state_time=request.expire_time)
    return request


def renewable(grant: Grant) -> Grant:
    """Return a grant that somebody asked for, and can ask for again.

    Raises:
        Conflict: It is a seat in a game.
    """
    if names.in_game(grant.request):
        raise Conflict("A seat in a game ends with the game, and is not renewed.", grant=grant.name)
    return grant


def renew(
    grant: Grant,
    name: str,
    *,
    requester: User,
    subjects: Sequence[Subject],
    justification: str,
    now: datetime,
    need: str = "",
    budget: Budget | None = None,
    duration: timedelta | None = None,
    stated: Stated = _NOTHING,
    table: HazardTable = TABLE,
) -> Request:
    """Ask again for what a grant gave: a new request, decided like any other, for the level of today.

    Args:
        grant: The old grant, active or expired.
        name: Name of the new request.
        requester: Its user.
        subjects: Its versions as they stand now, in its order.
        justification: Why it is needed still.
        now: The call's time.
        need: Why text and numbers are not enough, where weights are asked for.
        budget: By default what the grant gave, as far as it may still be asked for.
        duration: By default as long as the grant lasted, or the longest that level and conditions permit.
        stated: As for `open_request`.
        table: Where the deployment has tightened the hazard table.

    Raises:
        Denied: The grant is another's.
        GrantRevoked: It was taken back; that is not renewed but asked anew.
        Conflict: The bytes under its names have changed.
        InvalidArgument: As for `open_request`.
    """
    if grant.user != requester.name:
        raise Denied("A grant is renewed by the person it was given to; ask for one of your own.", grant=grant.name)
    if grant.state is GrantState.REVOKED:
        raise GrantRevoked("A grant that was taken back is not renewed; ask anew and say what changed.", grant=grant.name)
    if tuple(subject.ref for subject in subjects) != grant.versions:
        raise Conflict("The grant names other bytes than there are now; ask for the version you need.", grant=grant.name)
    level = max(subject.level for subject in subjects)
    lasted = grant.expire_time - grant.create_time
    return open_request(
        name,
        requester=requester,
        subjects=subjects,
        rung=grant.rung,
        purpose=grant.purpose,
        justification=justification,
        need=need,
        budget=budget or within(grant.budget, most_budget(level, grant.rung, **smallest(subjects))),
        duration=duration or purposes.longest(conditions(subjects), min(lasted, table.rules_of(level).max_duration)),
        stated=stated,
        previous=grant.request,
        now=now,
        table=table,
    )


def reapply(
    old: Request,
    name: str,
    *,
    requester: User,
    subjects: Sequence[Subject],
    now: datetime,
    justification: str = "",
    need: str = "",
    budget: Budget | None = None,
    duration: timedelta | None = None,
    stated: Stated | None = None,
    table: HazardTable = TABLE,
) -> Request:
    """Ask again for what a request asked that was refused, taken back or left to lapse; what is not given is carried over.

    Args:
        old: The request, as it stands.
        name: Name of the new one.
        requester: Who asked then.
        subjects: Its versions as they stand now, in its order.
        now: The call's time.
        justification: A new one; reviewers see what was refused, so it should say what changed.
        need: A new one.
        budget: A new one.
        duration: A new one.
        stated: What is stated now; by default the same, from the same time.
        table: Where the deployment has tightened the hazard table.

    Raises:
        Denied: It was another's.
        Conflict: It waits still, or was granted; or one of its versions is not the one it named.
        InvalidArgument: As for `open_request`, as are the refusals.
    """
    if old.requester != requester.name:
        raise Denied("A request is asked again by the person who asked it; ask for yourself.", request=old.name)
    state = lapse(old, now=now).state
    if state is RequestState.PENDING:
        raise Conflict("The request waits still; amend it.", request=old.name)
    if state is RequestState.GRANTED:
        raise Conflict("The request was granted; renew its grant.", request=old.name, grant=old.grant)
    if tuple(subject.ref for subject in subjects) != old.versions:
        raise Conflict("The request names other bytes than there are now; ask for the version you need.", request=old.name)
    return open_request(
        name,
        requester=requester,
        subjects=subjects,
        rung=old.rung,
        purpose=old.purpose,
        justification=justification or old.justification,
        need=need or old.need,
        budget=budget or old.budget,
        duration=duration or timedelta(seconds=old.duration_s),
        stated=stated or old.stated,
        previous=old.name,
        now=now,
        table=table,
    )
