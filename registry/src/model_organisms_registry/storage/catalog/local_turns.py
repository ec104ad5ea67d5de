"""Questions to cells on their holders' machines, as rows: announced, not yet reported. What a report may say, the rules know."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Conflict
from model_organisms.records import Budget, SamplingParameters, SessionState
from sqlalchemy import delete, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, rows
from model_organisms_registry.storage.catalog.sandbox import IntentKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection, Row

_TURNS = select(schema.local_turns, schema.intents.c.seq).join(schema.intents, schema.intents.c.id == schema.local_turns.c.name)


@dataclass(frozen=True, slots=True)
class LocalTurn:
    """One question, from its announcement to its report."""

    session: str
    name: str
    """Resource name of the sample."""
    kind: IntentKind
    parameters: SamplingParameters
    """With the seed that the registry chose; of a probe without meaning."""
    taken: Budget
    """What was set aside for it."""
    create_time: datetime
    seq: int
    """Random number of the entry that announced it, by which it is found in the ledger."""


def add(tx: Connection, turn: LocalTurn) -> None:
    """Note that a question is under way.

    Raises:
        Conflict: Another one is, in the same session.
    """
    values = {
        "session": turn.session,
        "name": turn.name,
        "kind": turn.kind.value,
        "parameters": json.dumps(asdict(turn.parameters), sort_keys=True),
        **budgets.dump("taken", turn.taken),
        "create_time": turn.create_time,
    }
    if not rows.added(tx, schema.local_turns, values):
        earlier = tx.scalar(select(schema.local_turns.c.name).where(schema.local_turns.c.session == turn.session))
        msg = f"An earlier question of this session, '{earlier}', was not reported; report it, or that nothing came of it."
        raise Conflict(msg, session=turn.session, sample=str(earlier))


def find(tx: Connection, session: str) -> LocalTurn | None:
    """The question that is under way in a session."""
    row = tx.execute(_TURNS.where(schema.local_turns.c.session == session)).first()
    return None if row is None else _turn(row)


def take(tx: Connection, turn: LocalTurn) -> None:
    """Take a question out, once: who does so settles it.

    Raises:
        Conflict: Somebody has done so.
    """
    table = schema.local_turns
    if tx.execute(delete(table).where(table.c.session == turn.session, table.c.name == turn.name)).rowcount != 1:
        raise reported(turn.name)


def reported(name: str) -> Conflict:
    """Say that there is nothing to report."""
    return Conflict(f"'{name}' is not under way: it was reported already, or never begun. Ask again.", name=name)


def used(tx: Connection, session: str, now: datetime) -> None:
    """Note that a local session is in use."""
    table = schema.sessions
    tx.execute(update(table).where(table.c.name == session).values(used_time=now))


def last_used(tx: Connection, session: str) -> datetime:
    """When a local session was last in use."""
    row: datetime = rows.get(tx, schema.sessions, session).used_time
    return row


def left_behind(tx: Connection) -> Iterator[LocalTurn]:
    """Questions whose session has ended, the oldest first."""
    table, sessions = schema.local_turns, schema.sessions
    ended = _TURNS.join(sessions, sessions.c.name == table.c.session).where(sessions.c.state != SessionState.OPEN.value)
    return map(_turn, tx.execute(ended.order_by(table.c.create_time, table.c.name)).all())


def _turn(row: Row[Any]) -> LocalTurn:
    kept = json.loads(row.parameters)
    parameters = SamplingParameters(**kept | {"stop": tuple(kept["stop"])})
    taken = budgets.load("taken", row)
    return LocalTurn(row.session, row.name, IntentKind(row.kind), parameters, taken, row.create_time, row.seq)
