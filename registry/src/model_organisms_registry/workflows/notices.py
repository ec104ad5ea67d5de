"""Telling the holders of a version what they must know, in the transaction of what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.records import Notice

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.storage.catalog import holding as rows
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.records import NoticeKind

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.changes import Change


def tell(change: Change, call: Call, kind: NoticeKind, subject: str, *, versions: Sequence[str], text: str) -> None:
    """Leave a notice for everybody who has a copy of one of the versions, or a grant on it that stands; but not for the doer.

    It comes before the entry of what happened, whose receipt is the call's answer.

    Args:
        change: The transaction of what happened.
        call: Whose deed it is.
        kind: What happened.
        subject: To which version or organism.
        versions: Whose holders are told.
        text: What they read.
    """
    users = sorted(rows.holders(change.tx, versions, now=call.time) - {call.user.name})
    if users:
        rows.add_notices(change.tx, [Notice(fresh("notices", call.time), user, kind, subject, text, call.time) for user in users])
        facts = {"kind": kind.value, "users": str(len(users))}
        change.enter(entry(Event.NOTICE, call, seq=seq(), subject=subject, facts=facts))
