"""How a request fits what the owners of organisms ask (the shape of GA4GH DUO and Passports). Who approves is in `approvals.py`.

- Each condition gives one reason: met, not met, or for a person to judge; the worst of them is the outcome.
- DENY refuses a request as it is opened. ABSTAIN brings at least one reviewer in. APPROVE spares nobody an approval.
- A condition that is not understood refuses, because keeping to it cannot be judged.
- What the registry knows (the organisation, the rung, the duration) is met or not; what the requester alone says is at best a
  promise, and a project, which anybody can name, is for a person.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from model_organisms.errors import EvidenceExpired, InvalidArgument, PurposeRefused
from model_organisms.formats.conditions import check, print_condition, project
from model_organisms.records import Condition, Match, Modifier, Organism, Outcome, Purpose, Reason, Rung, Stated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

ASSERTION_LIFETIME = timedelta(days=400)
"""How long a statement counts after it was made: the longest grant and the longest wait for it, and a little more."""
_WEIGHTS = frozenset({Modifier.NO_FINETUNE, Modifier.NO_MERGE})
"""What nobody can do who never holds the weights."""
_FACTS = frozenset({Modifier.TIME_LIMIT, Modifier.PROJECT, Modifier.INSTITUTION})
"""What is checked, so that there is nothing to promise."""
PROMISES = frozenset(Modifier) - _FACTS - {Modifier.UNSPECIFIED}
"""What a requester can promise to keep to."""
_ORDER = (Outcome.APPROVE, Outcome.ABSTAIN, Outcome.DENY)


class Asked(NamedTuple):
    """What is held against conditions."""

    organisation: str
    """The requester's, as their account says."""
    rung: Rung
    purpose: Purpose
    duration: timedelta | None
    """None takes what is permitted."""
    stated: Stated


def match(organisms: Iterable[Organism], asked: Asked) -> Match:
    """Hold what is asked against what every owner asks.

    Args:
        organisms: Those that are asked for, in any order; each is looked at once.
        asked: What is asked, and what is stated with it.

    Returns:
        The outcome and all its reasons, the worst first.
    """
    reasons = [reason for organism in dict.fromkeys(organisms) for reason in _reasons(organism, asked)]
    reasons.sort(key=lambda reason: -_ORDER.index(reason.outcome))
    return Match(reasons[0].outcome if reasons else Outcome.APPROVE, tuple(reasons))


def refuse_unfit(found: Match) -> Match:
    """Return a match that is no refusal.

    Raises:
        PurposeRefused: It is one; the message has every reason.
    """
    against = [reason for reason in found.reasons if reason.outcome is Outcome.DENY]
    if found.outcome is Outcome.DENY:
        said = " ".join(f"{reason.organism}: {reason.text}" for reason in against)
        raise PurposeRefused(f"This does not fit what is asked of its users. {said}", about=", ".join(r.about for r in against))
    return found


def gathered(organisms: Iterable[Organism]) -> tuple[Condition, ...]:
    """All conditions of several organisms, each once."""
    return tuple(dict.fromkeys(condition for organism in organisms for condition in organism.conditions))


def longest(conditions: Iterable[Condition], otherwise: timedelta) -> timedelta:
    """How long a grant under these conditions lasts at most."""
    limits = (timedelta(seconds=one.duration_s) for one in conditions if one.modifier is Modifier.TIME_LIMIT)
    return min(otherwise, *limits, otherwise)


def state(stated: Stated, *, now: datetime) -> Stated:
    """Take what a requester states, and note when.

    Raises:
        InvalidArgument: A condition that is not understood or is not for promising, one accepted and declined, or a past end.
    """
    if stated.project:
        project(stated.project)
    for modifier in (*(check(one).modifier for one in stated.accepts), *stated.declines):
        if modifier in _FACTS or modifier is Modifier.UNSPECIFIED:
            raise InvalidArgument(f"{modifier.value} is checked, not promised; leave it out.", field="stated")
    both = {one.modifier for one in stated.accepts} & set(stated.declines)
    if both or len({one.modifier for one in stated.accepts}) < len(stated.accepts):
        raise InvalidArgument("State of each condition once that you accept it, or that you do not.", field="stated")
    until = stated.until.replace(microsecond=0) if stated.until else None
    if until and until <= now:
        raise InvalidArgument("What you state would be over already; state an end that is to come.", field="stated.until")
    return replace(stated, until=until, assert_time=now.replace(microsecond=0))


def still_so(stated: Stated, duration: timedelta, *, now: datetime) -> None:
    """Refuse access that would outlive what it was given for: now + ttl < min(evidence expiry, asserted + maximum ttl).

    Raises:
        EvidenceExpired: It would.
    """
    ends = [stated.until] if stated.until else []
    if stated.assert_time and (stated.project or stated.accepts):
        ends.append(stated.assert_time + ASSERTION_LIFETIME)
    if ends and now + duration >= min(ends):
        msg = (
            f"What is stated holds until {min(ends):%Y-%m-%d %H:%M} UTC, and the grant would last until "
            f"{now + duration:%Y-%m-%d %H:%M} UTC; its requester must state it anew, or ask for less time."
        )
        raise EvidenceExpired(msg, until=min(ends).isoformat())


def _reasons(organism: Organism, asked: Asked) -> Iterator[Reason]:
    if organism.purposes:
        permitted = asked.purpose in organism.purposes
        named = ", ".join(organism.purposes)
        text = f"{asked.purpose} is permitted." if permitted else f"{asked.purpose} is not permitted; permitted is {named}."
        yield Reason(Outcome.APPROVE if permitted else Outcome.DENY, "purpose", organism.name, text)
    for modifier in dict.fromkeys(condition.modifier for condition in organism.conditions):
        alike = [condition for condition in organism.conditions if condition.modifier == modifier]
        outcome, text = _judged(modifier, alike, asked)
        yield Reason(outcome, str(modifier), organism.name, text)


def _judged(modifier: Modifier, alike: Sequence[Condition], asked: Asked) -> tuple[Outcome, str]:
    """Judge the conditions of one kind: of projects and institutions any one will do."""
    try:
        for condition in alike:
            check(condition)
    except InvalidArgument:
        return Outcome.DENY, "This condition is not understood; its owner must change it."
    if modifier is Modifier.TIME_LIMIT:
        return _in_time(timedelta(seconds=min(one.duration_s for one in alike)), asked.duration)
    if modifier in _FACTS:
        return _one_of(modifier, [one.name for one in alike], asked)
    return _promised(alike[0], asked)


def _in_time(limit: timedelta, duration: timedelta | None) -> tuple[Outcome, str]:
    if duration is not None and duration > limit:
        return Outcome.DENY, f"A grant lasts {limit} at most; ask for no more."
    return Outcome.APPROVE, f"The grant lasts {limit} at most."


def _one_of(modifier: Modifier, wanted: Sequence[str], asked: Asked) -> tuple[Outcome, str]:
    named = " or ".join(wanted)
    if modifier is Modifier.INSTITUTION:
        if asked.organisation in wanted:
            return Outcome.APPROVE, f"The requester's account is of {asked.organisation}."
        return Outcome.DENY, f"It is for {named}; the requester's account is of {asked.organisation}."
    if asked.stated.project in wanted:
        return Outcome.ABSTAIN, f"The requester states the project {asked.stated.project}; a reviewer must know that it is so."
    return Outcome.DENY, f"It is for the project {named}; state that project if it is yours."


def _promised(condition: Condition, asked: Asked) -> tuple[Outcome, str]:
    said = print_condition(condition)
    if condition.modifier in asked.stated.declines:
        return Outcome.DENY, f"{said} is asked, and the requester states that they will not keep to it."
    accepted = next((one for one in asked.stated.accepts if one.modifier is condition.modifier), None)
    if accepted is not None and accepted.duration_s < condition.duration_s:
        return Outcome.DENY, f"{said} is asked, and the requester accepts {print_condition(accepted)} only."
    if accepted is not None:
        return Outcome.APPROVE, f"The requester accepts {said}."
    if condition.modifier in _WEIGHTS and asked.rung < Rung.PULL:
        return Outcome.APPROVE, f"{said} holds by itself: the weights stay in the registry."
    return Outcome.ABSTAIN, f"{said} is asked, and the requester says nothing of it; a reviewer must ask, or they accept it."
