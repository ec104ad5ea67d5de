"""Whose move it is on a request, and until when; shown to whoever may see the request. Nothing is decided here.

- Reviewers are counted, with their organisations, and never named: who may decide is no secret, who they are may be.
- What is told follows from the same rules that decide (`approvals.py`), so that nobody is sent to somebody who would be refused.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import ApprovalRefused, ModelOrganismsError
from model_organisms.records import Clock, Request, RequestState, Turn, User

from model_organisms_registry.domain import approvals, purposes
from model_organisms_registry.domain.hazard import TABLE, HazardTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from model_organisms.records import Approval

    from model_organisms_registry.domain.organisms import Subject

_OVER = {
    RequestState.GRANTED: "It was granted; its grant says until when.",
    RequestState.REJECTED: "It was refused; its requester may ask again, and say what changed.",
    RequestState.WITHDRAWN: "Its requester took it back, and may ask again.",
    RequestState.EXPIRED: "Nobody decided on it in time; its requester may ask again.",
}


def clock(
    request: Request,
    *,
    subjects: Sequence[Subject],
    people: Sequence[User],
    now: datetime,
    witnessed: bool = False,
    table: HazardTable = TABLE,
) -> Clock:
    """Tell how a request stands.

    1. What is decided waits for nobody.
    2. What is no longer as it was asked waits for its requester: no reviewer can decide on it.
    3. Else it waits for those reviewers whose yes would add to those that count; or, where these are enough, for the witness.

    Args:
        request: As it stands, lapsed if its time is over.
        subjects: Its versions as they stand now.
        people: The reviewers there are, and whoever has decided on it.
        now: The call's time.
        witnessed: A witness has cosigned the ledger's head.
        table: Where the deployment has tightened the hazard table.
    """
    since = request.state_time or request.create_time
    if request.state is not RequestState.PENDING:
        return Clock(since, Turn.NOBODY, _OVER[request.state])
    demands = table.of(request.level, request.rung)
    given = approvals.counted(request, now=now, reviewers=people)
    voices = len({one.organisation for one in given} if demands.distinct_organisations else {one.reviewer for one in given})
    missing = max(0, max(demands.approvals, request.needed) - voices)
    waits = Clock(since, Turn.REVIEWERS, "A reviewer may decide.", request.expire_time, voices, missing)
    try:
        approvals.as_asked(request, subjects)
        purposes.still_so(request.stated, timedelta(seconds=request.duration_s), now=now)
    except ModelOrganismsError as error:
        return replace(waits, turn=Turn.REQUESTER, why=error.message)
    able = [person for person in people if _adds(request, person, subjects, given, table)]
    waits = replace(waits, reviewers=len(able), organisations=tuple(sorted({person.organisation for person in able})))
    if demands.witness and not witnessed:
        why = "No witness cosigns the ledger, so no approval can make a grant; the operator sees to that."
        return replace(waits, turn=Turn.WITNESS, why=why)
    if not able:
        return replace(waits, why="No reviewer here may decide on it; ask the registry's admins for one who can.")
    return waits


def _adds(request: Request, person: User, subjects: Sequence[Subject], given: Sequence[Approval], table: HazardTable) -> bool:
    try:
        approvals.may_decide(request, person, subjects)
        approvals.adds(request, person, table.of(request.level, request.rung), given, approve=True)
    except ApprovalRefused:
        return False
    return True
