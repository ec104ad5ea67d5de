"""What a request comes to by the versions as they stand: level, approvals, conditions, time, budget; asking is in `access.py`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms.errors import Denied, InvalidArgument
from model_organisms.records import Level, Outcome

from model_organisms_registry.domain import purposes
from model_organisms_registry.domain.budgets import check_budget, default_budget
from model_organisms_registry.domain.organisms import plain, served

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from model_organisms.records import Budget, Condition, Request

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.organisms import Subject

SHORTEST = timedelta(minutes=1)
DEFAULT_DURATION = timedelta(days=30)
TEXT_LIMIT = 10_000
SHORTEST_TEXT = 40
"""Characters of a justification from CL2 on, and of a stated need: a sentence, so that a reviewer has something to judge."""


def filled(
    draft: Request,
    subjects: Sequence[Subject],
    *,
    budget: Budget | None,
    duration: timedelta | None,
    now: datetime,
    table: HazardTable,
) -> Request:
    """Fill in what follows from the versions as they stand, and check what is asked against it."""
    # 1. Every version can be had at all.
    for subject in subjects:
        served(subject.version.state, subject.version.name)
    level = max(subject.level for subject in subjects)
    demands = table.of(level, draft.rung)
    if demands.forbidden:
        msg = f"At {level.name} {draft.rung.name.lower()} is never granted; ask for sample or probe."
        raise Denied(msg, level=level.name, rung=draft.rung.name.lower())
    # 2. There is something to judge.
    justification = plain(draft.justification, "justification", limit=TEXT_LIMIT)
    need = plain(draft.need, "need", limit=TEXT_LIMIT)
    if level >= Level.CL2 and len(justification) < SHORTEST_TEXT:
        msg = f"At {level.name} say in at least {SHORTEST_TEXT} characters what you need access for; reviewers will read it."
        raise InvalidArgument(msg, field="justification")
    if demands.needs_stated_need and len(need) < SHORTEST_TEXT:
        msg = f"At {level.name} say in at least {SHORTEST_TEXT} characters of `need` why sampling and probing are not enough."
        raise InvalidArgument(msg, field="need")
    # 3. It fits what the owners ask.
    asks = conditions(subjects)
    asked = purposes.Asked(draft.organisation, draft.rung, draft.purpose, duration, draft.stated)
    match = purposes.refuse_unfit(purposes.match([subject.organism for subject in subjects], asked))
    # 4. It ends, before what is stated does, and it is bounded.
    longest = table.rules_of(level).max_duration
    wanted = purposes.longest(asks, min(DEFAULT_DURATION, longest)) if duration is None else duration
    if not SHORTEST <= wanted <= longest:
        msg = f"At {level.name} a grant lasts {SHORTEST.seconds} s to {longest // timedelta(seconds=1)} s; renew it when it ends."
        raise InvalidArgument(msg, field="duration_s")
    purposes.still_so(draft.stated, wanted, now=now)
    least = smallest(subjects)
    given = default_budget(level, draft.rung, **least) if budget is None else budget
    return replace(
        draft,
        level=level,
        justification=justification,
        need=need,
        # What the conditions leave to a person, a person decides, also where the table asks nobody.
        needed=max(demands.approvals, int(match.outcome is Outcome.ABSTAIN)),
        conditions=asks,
        match=match,
        duration_s=wanted // timedelta(seconds=1),
        budget=check_budget(given, level, draft.rung, **least),
    )


def conditions(subjects: Sequence[Subject]) -> tuple[Condition, ...]:
    """What the owners of all of them ask."""
    return purposes.gathered(subject.organism for subject in subjects)


def smallest(subjects: Sequence[Subject]) -> dict[str, int]:
    """The smallest adapter sets the budget: what is released could be of that one alone."""
    return {
        "weights": min(subject.weights for subject in subjects),
        "parameters": min(subject.parameters for subject in subjects),
    }
