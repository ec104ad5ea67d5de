"""How a request is decided: what a statement must say, who may make one, when there are enough. Asking is in `access.py`.

- Only a pending request moves, and only before it lapses.
- A statement binds all that the request asks for and states, the conditions it was asked under, and an expiry; where one of these
  is another, it counts for nothing, and an amendment voids all given so far.
- A signature counts only while its signer is an active reviewer with that same key.
- Nobody decides where they have an interest: not the requester, nor an owner of what is asked for, nor who made it.
- The hazard table says how many must agree. One person and one key count once.
- Where different organisations are demanded, the approvers' differ from each other, so at least one stands outside the
  requester's; at CL4 all do.
- One signed no ends a request; the requester may ask again.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from model_organisms import names
from model_organisms.errors import ApprovalRefused, Conflict, InvalidArgument
from model_organisms.formats.dsse import key_id
from model_organisms.formats.statements import review_of
from model_organisms.records import Approval, Budget, Grant, GrantState, Request, RequestState, Role, User, UserState

from model_organisms_registry.domain import purposes
from model_organisms_registry.domain.hazard import TABLE, Demands, HazardTable
from model_organisms_registry.domain.organisms import plain, served

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from model_organisms.formats.statements import Review

    from model_organisms_registry.domain.organisms import Subject

APPROVAL_LIFETIME = timedelta(hours=72)
"""Longest time between a reviewer's signature and the grant it helps to make."""
CLOCK_SKEW = timedelta(minutes=5)
REASON_LIMIT = 2_000
SHORTEST_REFUSAL = 10
"""Characters of the reason of a no: enough to say what would make it a yes."""


def pending(request: Request, *, now: datetime) -> Request:
    """Return a request that can still be decided.

    Raises:
        Conflict: It is decided, withdrawn or lapsed.
    """
    if request.state is not RequestState.PENDING:
        raise Conflict(f"The request is {request.state.value}; make a new one.", request=request.name)
    if now >= request.expire_time:
        raise Conflict("Nobody decided on the request in time; make a new one.", request=request.name)
    return request


def review(
    request: Request,
    statement: Review,
    reviewer: User,
    *,
    reviewers: Iterable[User],
    envelope: bytes,
    subjects: Sequence[Subject],
    now: datetime,
    table: HazardTable = TABLE,
) -> Request:
    """Take one reviewer's yes or no.

    1. The request can still be decided.
    2. The statement is about this request as it stands, and has neither lapsed nor too long to live.
    3. What it is about is still what was asked for: served, the same bytes, level and conditions. What the requester states
       outlasts the grant that a yes would help to make.
    4. This reviewer may decide on it, and has not yet.
    5. A no ends the request; a yes is added. Whether there are enough is `complete`'s to say.

    Args:
        request: As it stands in this transaction.
        statement: What the reviewer signed; the caller has verified the signature with the reviewer's own key.
        reviewer: Whose key that is.
        reviewers: Who has decided so far, as their accounts stand now.
        envelope: The signed bytes, kept as proof.
        subjects: The versions as they stand now, in the request's order.
        now: The call's time.
        table: Where the deployment has tightened the hazard table.

    Returns:
        The request with the decision as its last approval: pending still, or rejected.

    Raises:
        Conflict: It is decided or lapsed, or a version, its level or its conditions are others by now.
        EvidenceExpired: What the requester states would end before the grant.
        Withdrawn: One of its versions is withdrawn.
        ApprovalRefused: The statement is not about this, has lapsed, or this reviewer may not decide.
        InvalidArgument: A no without a reason.
    """
    pending(request, now=now)
    _about(request, statement, now)
    as_asked(request, subjects)
    demands = table.of(request.level, request.rung)
    if statement.approve:
        purposes.still_so(request.stated, timedelta(seconds=request.duration_s), now=now)
    if demands.forbidden and statement.approve:
        _refuse("The hazard table forbids this rung at this level; reject the request.", request)
    may_decide(request, reviewer, subjects)
    adds(request, reviewer, demands, counted(request, now=now, reviewers=reviewers), approve=statement.approve)
    decision = Approval(
        name=names.check("approval", f"{request.name}/approvals/{names.short(reviewer.name)}"),
        reviewer=reviewer.name,
        organisation=reviewer.organisation,
        key_id=key_id(reviewer.identity_key),
        approve=statement.approve,
        reason=plain(statement.reason, "reason", limit=REASON_LIMIT),
        envelope=envelope,
        create_time=now,
        expire_time=statement.expires,
    )
    decided = replace(request, approvals=(*request.approvals, decision))
    if decision.approve:
        return decided
    if len(decision.reason) < SHORTEST_REFUSAL:
        msg = f"Say in at least {SHORTEST_REFUSAL} characters why, so that the requester knows what to change."
        raise InvalidArgument(msg, field="reason")
    return replace(decided, state=RequestState.REJECTED, reason=decision.reason, state_time=now)


def _about(request: Request, statement: Review, now: datetime) -> None:
    stands = review_of(
        request, approve=statement.approve, reason=statement.reason, expires=statement.expires, nonce=statement.nonce
    )
    for field in fields(stands):
        if getattr(statement, field.name) != getattr(stands, field.name):
            _refuse(f"What you signed has another {field.name} than the request has now; read it again and sign that.", request)
    if now >= statement.expires:
        _refuse("What you signed has lapsed; read the request again and sign anew.", request)
    if statement.expires > now + APPROVAL_LIFETIME + CLOCK_SKEW:
        hours = APPROVAL_LIFETIME // timedelta(hours=1)
        _refuse(f"What you sign may live {hours} h at most; sign anew with an earlier expiry.", request)


def as_asked(request: Request, subjects: Sequence[Subject]) -> None:
    """Refuse a request about what is no longer as it was asked for.

    Raises:
        Conflict: A version, its level or its conditions are others by now.
        Withdrawn: One of its versions is.
    """
    for subject in subjects:
        served(subject.version.state, subject.version.name)
    if tuple(subject.ref for subject in subjects) != request.versions:
        raise Conflict("The request names other bytes than there are now; its requester must ask anew.", request=request.name)
    if max(subject.level for subject in subjects) != request.level:
        msg = "The level of what is asked for was changed since; its requester must amend the request."
        raise Conflict(msg, request=request.name)
    permitted = (subject.organism.purposes for subject in subjects)
    same = purposes.gathered(subject.organism for subject in subjects) == request.conditions
    if not same or any(named and request.purpose not in named for named in permitted):
        msg = "The conditions of what is asked for were changed since; its requester must amend the request."
        raise Conflict(msg, request=request.name)


def may_decide(request: Request, reviewer: User, subjects: Sequence[Subject]) -> None:
    """Refuse who is no reviewer, or has an interest.

    Raises:
        ApprovalRefused: They do not decide on this request.
    """
    if not _stands(reviewer):
        _refuse("Only reviewers decide on requests; ask one.", request)
    if reviewer.name == request.requester:
        _refuse("Nobody decides on their own request; another reviewer must.", request)
    if any(reviewer.name == subject.organism.owner for subject in subjects):
        _refuse("The owner of an organism does not decide who gets it; another reviewer must.", request)
    if any(reviewer.name in subject.authors for subject in subjects):
        _refuse("Those who made a version do not decide who gets it; another reviewer must.", request)


def adds(request: Request, reviewer: User, demands: Demands, given: Iterable[Approval], *, approve: bool) -> None:
    """Refuse a decision that would add nothing: by the same person, or from a house that has spoken.

    Raises:
        ApprovalRefused: It would.
    """
    if any(approval.reviewer == reviewer.name for approval in request.approvals):
        _refuse("You have decided on this revision already; another reviewer must, or the requester amends it.", request)
    if not approve:
        return
    if demands.distinct_organisations and reviewer.organisation in {item.organisation for item in given}:
        _refuse("Somebody of your organisation has approved; a reviewer of another one must.", request)
    if not demands.own_organisation_may_approve and reviewer.organisation == request.organisation:
        _refuse("At this level nobody of the requester's organisation approves; a reviewer of another one must.", request)


def complete(
    request: Request, *, now: datetime, reviewers: Iterable[User], witnessed: bool = False, table: HazardTable = TABLE
) -> bool:
    """Whether a pending request has what the table demands, or its conditions where they demand more, of approvals that count.

    Args:
        request: As it stands in this transaction.
        now: The call's time.
        reviewers: Who has decided on it, as their accounts stand in this transaction.
        witnessed: A witness has cosigned the ledger's head.
        table: Where the deployment has tightened the hazard table.
    """
    demands = table.of(request.level, request.rung)
    if request.state is not RequestState.PENDING or now >= request.expire_time or demands.forbidden:
        return False
    given = counted(request, now=now, reviewers=reviewers)
    people = {approval.reviewer for approval in given} - {request.requester}
    keys = {approval.key_id for approval in given}
    houses = {approval.organisation for approval in given}
    if not demands.own_organisation_may_approve and request.organisation in houses:
        return False
    enough = len(houses) if demands.distinct_organisations else len(people)
    return min(len(people), len(keys), enough) >= max(demands.approvals, request.needed) and (witnessed or not demands.witness)


def counted(request: Request, *, now: datetime, reviewers: Iterable[User]) -> tuple[Approval, ...]:
    """Approvals that count: not lapsed, and each signer is still an active reviewer with the key that signed.

    Args:
        request: As it stands in this transaction.
        now: The call's time.
        reviewers: Who has decided on it, as their accounts stand in this transaction.
    """
    keys = {user.name: key_id(user.identity_key) for user in reviewers if _stands(user)}
    live = (item for item in request.approvals if item.approve and item.expire_time is not None and now < item.expire_time)
    return tuple(item for item in live if keys.get(item.reviewer) == item.key_id)


def _stands(user: User) -> bool:
    return user.state is UserState.ACTIVE and Role.REVIEWER in user.roles


def grant_from(
    request: Request,
    name: str,
    *,
    now: datetime,
    reviewers: Sequence[User],
    witnessed: bool = False,
    table: HazardTable = TABLE,
) -> Grant:
    """Make the grant of a complete request; `settled` says so in the request.

    Args:
        request: Complete, in this transaction.
        name: Name of the grant.
        now: The call's time: the grant begins here.
        reviewers: Who has decided on it, as their accounts stand in this transaction.
        witnessed: A witness has cosigned the ledger's head.
        table: Where the deployment has tightened the hazard table.

    Raises:
        Conflict: It lacks something still.
        EvidenceExpired: What the requester states would end before the grant.
    """
    pending(request, now=now)
    if not complete(request, now=now, reviewers=reviewers, witnessed=witnessed, table=table):
        given, needed = len(counted(request, now=now, reviewers=reviewers)), table.of(request.level, request.rung).approvals
        needed = max(needed, request.needed)
        msg = f"The request has {given} of {needed} approvals that count, or no witness cosigns the ledger; decide again later."
        raise Conflict(msg, request=request.name)
    lasts = min(timedelta(seconds=request.duration_s), table.rules_of(request.level).max_duration)
    purposes.still_so(request.stated, lasts, now=now)
    return Grant(
        name=names.check("grant", name),
        user=request.requester,
        request=request.name,
        versions=request.versions,
        rung=request.rung,
        purpose=request.purpose,
        budget=request.budget,
        spent=Budget(),
        state=GrantState.ACTIVE,
        create_time=now,
        expire_time=now + lasts,
        level=request.level,
        conditions=request.conditions,
    )


def settled(request: Request, grant: Grant) -> Request:
    """The request that a grant was made from, granted.

    Raises:
        Conflict: The grant is another request's.
    """
    if grant.request != request.name or request.state is not RequestState.PENDING:
        raise Conflict("This grant was not made from this request; make one from it.", request=request.name)
    return replace(request, state=RequestState.GRANTED, grant=grant.name, state_time=grant.create_time)


def _refuse(why: str, request: Request) -> NoReturn:
    raise ApprovalRefused(why, request=request.name)
