"""Motions and the signatures they got, as rows. Whether they are enough is decided elsewhere."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, Conflict
from model_organisms.records import Motion, MotionKind, MotionState, Page, Signature
from sqlalchemy import select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

_SIGNATURE_FIELDS = ("signer", "organisation", "key_id", "approve", "reason", "envelope", "create_time")


@dataclass(frozen=True, slots=True)
class MotionFilter:
    """Conditions of a listing; what is empty does not narrow."""

    proposer: str = ""
    state: MotionState | None = None
    kind: MotionKind | None = None


def add_motion(tx: Connection, motion: Motion) -> None:
    """Open a motion. Its signatures are added one by one, by `add_signature`.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {
        "name": motion.name,
        "kind": motion.kind.value,
        "subject": motion.subject,
        "facts": json.dumps(motion.facts, ensure_ascii=False, sort_keys=True, separators=(",", ":")),
        "proposer": motion.proposer,
        "state": motion.state.value,
        "create_time": motion.create_time,
        "expire_time": motion.expire_time,
        "needed": motion.needed,
    }
    rows.add(tx, schema.motions, values, name=motion.name)


def motion(tx: Connection, name: str) -> Motion:
    """Read a motion with its signatures, and in a writing transaction hold it.

    Two people who sign at one moment must not each count the other's signature as missing.

    Raises:
        NotFound: There is none of that name.
    """
    return _read(tx, [rows.get(tx, schema.motions, name, lock=True)])[0]


def motions(
    tx: Connection,
    *,
    now: datetime,
    filter: MotionFilter = MotionFilter(),  # noqa: A002 - AIP-132 calls it so; the default is frozen
    page_size: int = 0,
    page_token: str = "",
) -> Page[Motion]:
    """List motions, newest first; what has lapsed by now counts as expired, whatever is stored."""
    table = schema.motions
    statement: Select[Any] = select(table)
    if filter.proposer:
        statement = statement.where(table.c.proposer == filter.proposer)
    if filter.kind is not None:
        statement = statement.where(table.c.kind == filter.kind.value)
    if filter.state is MotionState.OPEN:
        statement = statement.where(table.c.state == MotionState.OPEN.value, table.c.expire_time > now)
    elif filter.state is MotionState.EXPIRED:
        statement = statement.where(table.c.state == MotionState.OPEN.value, table.c.expire_time <= now)
    elif filter.state is not None:
        statement = statement.where(table.c.state == filter.state.value)
    return page(
        tx,
        statement,
        key=table.c.name,
        newest_first=True,
        listing=("motions", filter),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: _read(tx, found),
    )


def add_signature(tx: Connection, motion: str, signature: Signature) -> None:
    """Add somebody's yes or no.

    Raises:
        NotFound: There is no such motion.
        AlreadyExists: They have signed it.
    """
    rows.get(tx, schema.motions, motion, lock=True)
    values = {field: getattr(signature, field) for field in _SIGNATURE_FIELDS}
    if not rows.added(tx, schema.motion_signatures, {"motion": motion, **values}):
        raise AlreadyExists(f"'{signature.signer}' has signed '{motion}' already; one voice each.", name=motion)


def end_motion(tx: Connection, name: str, state: MotionState) -> None:
    """End an open motion (compare and swap).

    Raises:
        NotFound: There is none of that name.
        Conflict: It has ended in between.
    """
    table = schema.motions
    still_open = (table.c.name == name, table.c.state == MotionState.OPEN.value)
    if tx.execute(update(table).where(*still_open).values(state=state.value)).rowcount != 1:
        now = rows.get(tx, table, name).state
        raise Conflict(f"'{name}' is {now} by now; read it again.", name=name, state=now)


def _read(tx: Connection, found: Sequence[Row[Any]]) -> list[Motion]:
    """Turn rows into records; the signatures of all of them come in one statement."""
    of = schema.motion_signatures
    given: dict[str, list[Signature]] = defaultdict(list)
    wanted = select(of).where(of.c.motion.in_([row.name for row in found])).order_by(of.c.create_time, of.c.signer)
    for row in tx.execute(wanted):
        given[row.motion].append(Signature(**{field: getattr(row, field) for field in _SIGNATURE_FIELDS}))
    return [
        Motion(
            name=row.name,
            kind=MotionKind(row.kind),
            subject=row.subject,
            facts=json.loads(row.facts),
            proposer=row.proposer,
            state=MotionState(row.state),
            create_time=row.create_time,
            expire_time=row.expire_time,
            needed=row.needed,
            signatures=tuple(given[row.name]),
        )
        for row in found
    ]
