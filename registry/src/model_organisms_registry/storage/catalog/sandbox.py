"""Sessions, and where encrypted content lies, as rows; intents and pulls have their own files. What may run, others decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import Conflict
from model_organisms.records import Budget, Page, Purpose, Session, SessionState, VersionRef
from sqlalchemy import func, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, games, rows
from model_organisms_registry.storage.catalog.intents import (
    Intent,
    IntentKind,
    add_intent,
    finish_intent,
    release_intent,
    unfinished_intents,
)
from model_organisms_registry.storage.catalog.pulls import Pull, PullState, add_pull, pull, pulls, set_pull_state
from model_organisms_registry.storage.codecs import dump_texts, load_texts
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select

__all__ = [
    "Content",
    "Intent",
    "IntentKind",
    "Pull",
    "PullState",
    "add_content",
    "add_intent",
    "add_pull",
    "add_session",
    "commits",
    "content",
    "contents",
    "end_session",
    "finish_intent",
    "next_sample",
    "open_at",
    "open_of",
    "pull",
    "pulls",
    "refund_session",
    "release_intent",
    "replica_of",
    "session",
    "sessions",
    "set_pull_state",
    "spend_session",
    "unfinished_intents",
]


_HOLDER = "holder"


@dataclass(frozen=True, slots=True)
class Content:
    """Where the encrypted content behind a commitment lies, and which key opens it."""

    commit: str
    owner: str
    """The session it was said in, or the user or organism it is about."""
    blob: str
    key_id: str


def add_session(tx: Connection, session: Session, *, replica: str = "") -> None:
    """Add a session, whose cell is with a replica.

    Raises:
        AlreadyExists: The name is taken.
    """
    seen = session.version
    veiled = names.in_game(seen.name)
    loaded = games.veil(tx, seen.name).version if veiled else seen
    values = {
        "name": session.name,
        "user": session.user,
        "version": loaded.name,
        "digest": loaded.digest,
        "alias": seen.name if veiled else "",
        "blind": seen.digest if veiled else "",
        "grant": session.grant or None,
        "purpose": session.purpose.value,
        **budgets.dump("budget", session.budget),
        **budgets.dump("spent", session.spent),
        "state": session.state.value,
        "walls": dump_texts(session.walls),
        "create_time": session.create_time,
        "expire_time": session.expire_time,
        "end_time": None,
        "reason": session.reason,
        "samples": 0,
        "replica": replica,
        "place": _HOLDER if session.local else "registry",
        "used_time": session.create_time if session.local else None,
    }
    rows.add(tx, schema.sessions, values, name=session.name)


def session(tx: Connection, name: str, *, lock: bool = False) -> Session:
    """Read a session; locked, nobody ends it before the transaction does.

    Raises:
        NotFound: There is none of that name.
    """
    return _session(rows.get(tx, schema.sessions, name, lock=lock))


def replica_of(tx: Connection, name: str) -> str:
    """Say which replica has a session's cell.

    Raises:
        NotFound: There is none of that name.
    """
    return str(rows.get(tx, schema.sessions, name).replica)


def open_of(tx: Connection, user: str) -> int:
    """Count the open sessions of somebody that have their cell at the registry."""
    table = schema.sessions
    here = table.c.state == SessionState.OPEN.value, table.c.place != _HOLDER
    counted = select(func.count()).select_from(table).where(table.c.user == user, *here)
    return int(tx.execute(counted).scalar_one())


def open_at(tx: Connection) -> tuple[tuple[str, Session], ...]:
    """Read all open sessions that have their cell with a replica, each with its name."""
    table = schema.sessions
    here = table.c.state == SessionState.OPEN.value, table.c.place != _HOLDER
    found = tx.execute(select(table).where(*here).order_by(table.c.name))
    return tuple((row.replica, _session(row)) for row in found)


def sessions(
    tx: Connection,
    *,
    user: str = "",
    state: SessionState | None = None,
    version: str = "",
    grant: str = "",
    local: bool | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> Page[Session]:
    """List sessions, newest first; what is empty does not narrow."""
    table = schema.sessions
    statement: Select[Any] = select(table)
    for column, wanted in ((table.c.user, user), (table.c.version, version), (table.c.grant, grant)):
        if wanted:
            statement = statement.where(column == wanted)
    if state is not None:
        statement = statement.where(table.c.state == state.value)
    if local is not None:
        statement = statement.where((table.c.place == _HOLDER) == local)
    return page(
        tx,
        statement,
        key=table.c.name,
        newest_first=True,
        listing=("sessions", user, state, version, grant, local),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_session(row) for row in found],
    )


def end_session(tx: Connection, name: str, state: SessionState, reason: str, time: datetime) -> bool:
    """End an open session. Close, kill, expiry and a lost cell may come together: the first one wins, and is told so.

    Returns:
        Whether this call ended it.

    Raises:
        NotFound: There is none of that name.
    """
    table = schema.sessions
    statement = update(table).where(table.c.name == name, table.c.state == SessionState.OPEN.value)
    if tx.execute(statement.values(state=state.value, reason=reason, end_time=time)).rowcount == 1:
        return True
    rows.get(tx, table, name)
    return False


def spend_session(tx: Connection, name: str, amount: Budget) -> Session:
    """Spend from an open session, all fields or none.

    Raises:
        BudgetExhausted: A field has less left than asked; `details` says how much.
        Conflict: The session has ended.
        NotFound: There is none of that name.
    """
    row = budgets.take(tx, schema.sessions, name, amount=amount, state=SessionState.OPEN.value)
    if row is None:
        kept = rows.get(tx, schema.sessions, name, lock=True)
        if kept.state != SessionState.OPEN.value:
            raise _ended(kept)
        row = budgets.take(tx, schema.sessions, name, amount=amount, state=SessionState.OPEN.value)
        if row is None:  # it was not a refund between the two looks that made the difference
            left = budgets.load("budget", kept), budgets.load("spent", kept)
            raise budgets.exhausted(name, budget=left[0], spent=left[1], amount=amount)
    return _session(row)


def refund_session(tx: Connection, name: str, amount: Budget) -> None:
    """Return what a call took of a session and did not use.

    Raises:
        Conflict: It is more than was spent.
        NotFound: There is none of that name.
    """
    rows.get(tx, schema.sessions, name)
    budgets.give_back(tx, schema.sessions, name, amount=amount)


def next_sample(tx: Connection, session: str) -> int:
    """Count a sample of an open session, and give its number, from 1.

    Raises:
        Conflict: The session has ended.
        NotFound: There is none of that name.
    """
    table = schema.sessions
    statement = update(table).where(table.c.name == session, table.c.state == SessionState.OPEN.value)
    number = tx.execute(statement.values(samples=table.c.samples + 1).returning(table.c.samples)).scalar_one_or_none()
    if number is None:
        raise _ended(rows.get(tx, table, session))
    return int(number)


def add_content(tx: Connection, commit: str, owner: str, blob: str, key_id: str) -> None:
    """Note where the content behind a commitment lies.

    Raises:
        AlreadyExists: The commitment is known.
    """
    rows.add(tx, schema.contents, {"commit": commit, "owner": owner, "blob": blob, "key_id": key_id}, name=commit)


def content(tx: Connection, commit: str) -> Content | None:
    """Find the content behind a commitment."""
    row = rows.find(tx, schema.contents, schema.contents.c.commit == commit)
    return None if row is None else _content(row)


def commits(tx: Connection) -> frozenset[str]:
    """Read every commitment whose content lies here."""
    return frozenset(tx.scalars(select(schema.contents.c.commit)))


def contents(tx: Connection, owner: str) -> tuple[Content, ...]:
    """Read where all content of a session, a user or an organism lies, for the day its key is destroyed."""
    table = schema.contents
    statement = select(table).where(table.c.owner == owner).order_by(table.c.commit)
    return tuple(_content(row) for row in tx.execute(statement))


def _content(row: Row[Any]) -> Content:
    return Content(commit=row.commit, owner=row.owner, blob=row.blob, key_id=row.key_id)


def _ended(row: Row[Any]) -> Conflict:
    told = f" ({row.reason})" if row.reason else ""
    return Conflict(f"'{row.name}' is {row.state}{told}; open a new session.", name=row.name, state=row.state)


def _session(row: Row[Any]) -> Session:
    return Session(
        name=row.name,
        user=row.user,
        version=VersionRef(row.alias or row.version, row.blind or row.digest),
        grant=row.grant or "",
        purpose=Purpose(row.purpose),
        budget=budgets.load("budget", row),
        spent=budgets.load("spent", row),
        state=SessionState(row.state),
        walls=load_texts(row.walls),
        create_time=row.create_time,
        expire_time=row.expire_time,
        reason=row.reason,
        local=row.place == _HOLDER,
    )
