"""How requests and grants are shown: what a reviewer decides on, what a requester waits for, what a grant still gives."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.cli.render import emit, facts
from model_organisms.cli.stating import fits
from model_organisms.formats.conditions import show_condition
from model_organisms.records import BUDGET_FIELDS, RequestState, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.cli.context import Context
    from model_organisms.records import Approval, Clock, Grant, Past, Request, Stated


def told(context: Context, request_: Request) -> None:
    """Show what a reviewer decides on, and what the requester waits for."""
    emit(request_) if context.as_json else show_request(request_)


def show_request(request_: Request) -> None:
    """Show a request, all that a signature binds included."""
    asked = (f"{field} {number}" for field in BUDGET_FIELDS if (number := getattr(request_.budget, field)))
    facts(
        [
            ("Request", request_.name),
            ("Revision", request_.revision),
            ("Who", f"{request_.requester} of {request_.organisation}"),
            ("State", _state(request_)),
            *(_clock(request_.clock) if request_.clock else []),
            ("Approvals", progress(request_)),
            ("Rung", request_.rung),
            ("Level", request_.level),
            ("Versions", [f"{ref.name} (sha256 {ref.digest})" for ref in request_.versions]),
            ("Purpose", request_.purpose),
            ("Justification", request_.justification),
            *([("Need", request_.need)] if request_.need else []),
            ("Budget", ", ".join(asked)),
            ("For", str(timedelta(seconds=request_.duration_s)).removesuffix(", 0:00:00")),
            *_stated(request_.stated),
            *([("Conditions", [show_condition(one) for one in request_.conditions])] if request_.conditions else []),
            *(fits(request_.match) if request_.match else []),
            *((f"{names.short(given.reviewer)} said", _said(given)) for given in request_.approvals),
            ("Grant", request_.grant or "none yet"),
            *([("Reason", request_.reason)] if request_.reason else []),
            *([("Asks again", request_.previous)] if request_.previous and not request_.history else []),
            *(("Asks again", _past(old)) for old in request_.history),
        ]
    )


def show_grant(grant: Grant) -> None:
    """Show a grant and what is spent of it."""
    facts(
        [
            ("Grant", grant.name),
            ("State", grant.state),
            ("User", grant.user),
            ("Rung", grant.rung),
            ("Versions", [ref.name for ref in grant.versions]),
            ("Purpose", grant.purpose),
            ("Until", grant.expire_time),
            *([("Conditions", [show_condition(one) for one in grant.conditions])] if grant.conditions else []),
            ("Spent", spent(grant)),
            *([("Reason", grant.reason)] if grant.reason else []),
        ]
    )


def _stated(stated: Stated) -> Iterator[tuple[str, object]]:
    if stated.project:
        yield "Project", stated.project
    if stated.accepts:
        yield "Accepts", [show_condition(condition) for condition in stated.accepts]
    if stated.declines:
        yield "Declines", list(stated.declines)
    if stated.until:
        yield "So until", stated.until


def _state(request_: Request) -> str:
    since = f"{request_.state} since {request_.state_time or request_.create_time:%Y-%m-%d %H:%M} UTC"
    pending = request_.state is RequestState.PENDING
    return f"{since}; lapses {request_.expire_time:%Y-%m-%d %H:%M} UTC if undecided" if pending else since


def _clock(stands: Clock) -> Iterator[tuple[str, object]]:
    if stands.turn is Turn.NOBODY:
        return
    yield "Waits for", f"its {stands.turn}: {stands.why}" if stands.turn is Turn.REQUESTER else f"{stands.turn}: {stands.why}"
    able = f"{stands.reviewers} could decide now" + (f", of {', '.join(stands.organisations)}" if stands.organisations else "")
    yield "Missing", f"{stands.missing} of {stands.given + stands.missing} approvals; {able}"


def _past(old: Past) -> str:
    return f"{old.name}, {old.state}" + (f": {old.reason}" if old.reason else "")


def _said(given: Approval) -> str:
    answer = "yes" if given.approve else "no"
    lapses = f", counts until {given.expire_time:%Y-%m-%d %H:%M} UTC" if given.approve and given.expire_time else ""
    return f"{answer}, for {given.organisation}, signed by key {given.key_id}{lapses}: {given.reason or 'no reason given'}"


def progress(item: Request) -> str:
    """How many have agreed, and who."""
    given = [names.short(approval.reviewer) for approval in item.approvals if approval.approve]
    return f"{len(given)} of {item.needed}" + (f" ({', '.join(given)})" if given else "")


def spent(grant: Grant) -> str:
    """What is spent, of how much."""
    shown = ((field, getattr(grant.spent, field), getattr(grant.budget, field)) for field in BUDGET_FIELDS)
    return ", ".join(f"{field} {used}/{limit}" for field, used, limit in shown if limit)
