"""Requests and the approvals they got, as rows. Whether they are enough is decided elsewhere."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, Conflict
from model_organisms.records import Approval, Level, Page, Purpose, Request, RequestState, Rung, VersionRef
from sqlalchemy import and_, delete, func, literal, select, union, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, rows
from model_organisms_registry.storage.codecs import (
    dump_conditions,
    dump_match,
    dump_stated,
    load_conditions,
    load_match,
    load_stated,
)
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import CompoundSelect, Connection, Row, Select

_APPROVAL_FIELDS = (
    "name",
    "reviewer",
    "organisation",
    "key_id",
    "approve",
    "reason",
    "envelope",
    "create_time",
    "expire_time",
)


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Conditions of a listing; what is empty does not narrow."""

    requester: str = ""
    state: RequestState | None = None
    version: str = ""
    party: str = ""
    """Somebody who asked, or owns an organism that is asked for."""


def add_request(tx: Connection, request: Request) -> None:
    """Open a request. Its approvals are added one by one, by `add_approval`.

    Raises:
        AlreadyExists: The name is taken.
    """
    rows.add(tx, schema.requests, {"name": request.name, **_values(request)}, name=request.name)
    rows.add_all(tx, schema.request_versions, _versions(request))


def request(tx: Connection, name: str) -> Request:
    """Read a request with the approvals of its present revision, and in a writing transaction hold it.

    Two reviewers who approve at one moment must not each count the other's vote as missing.

    Raises:
        NotFound: There is none of that name.
    """
    return _read(tx, [rows.get(tx, schema.requests, name, lock=True)])[0]


def requests(
    tx: Connection,
    *,
    filter: RequestFilter = RequestFilter(),  # noqa: A002 - AIP-132 calls it so; the default is frozen
    page_size: int = 0,
    page_token: str = "",
) -> Page[Request]:
    """List requests, newest first."""
    table = schema.requests
    statement: Select[Any] = select(table)
    key = table.c.name
    if filter.requester:
        statement = statement.where(table.c.requester == filter.requester)
    if filter.party:
        statement = statement.where(table.c.name.in_(_of_party(filter.party)))
    if filter.state is not None:
        statement = statement.where(table.c.state == filter.state.value)
    if filter.version:
        key = schema.request_versions.c.request  # its index is in the order of the pages
        statement = statement.join(schema.request_versions, key == table.c.name)
        statement = statement.where(schema.request_versions.c.version == filter.version)
    return page(
        tx,
        statement,
        key=key,
        newest_first=True,
        listing=("requests", filter),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: _read(tx, found),
        weight=4
        * sum(
            (func.length(table.c[text]) for text in ("justification", "reason", "stated", "conditions", "match")), literal(0)
        ),  # a character has up to four bytes
    )


def lapsed(tx: Connection, now: datetime, *, most: int) -> list[str]:
    """Name pending requests whose time is over."""
    table = schema.requests
    over = (table.c.state == RequestState.PENDING.value, table.c.expire_time <= now)
    return list(tx.execute(select(table.c.name).where(*over).order_by(table.c.name).limit(most)).scalars())


def waiting(tx: Connection, organism: str) -> frozenset[str]:
    """Who has a pending request for a version of an organism."""
    of, version, table = schema.request_versions, schema.versions, schema.requests
    joined = table.join(of, of.c.request == table.c.name).join(version, version.c.name == of.c.version)
    statement = select(table.c.requester).select_from(joined)
    statement = statement.where(version.c.organism == organism, table.c.state == RequestState.PENDING.value)
    return frozenset(tx.execute(statement).scalars())


def _of_party(user: str) -> CompoundSelect[Any]:
    """Names of the requests somebody made, and of those for organisms they own: each found by an index."""
    of, version, owned = schema.request_versions, schema.versions, schema.organisms
    asked = select(of.c.request).join(version, version.c.name == of.c.version).join(owned, owned.c.name == version.c.organism)
    return union(select(schema.requests.c.name).where(schema.requests.c.requester == user), asked.where(owned.c.owner == user))


def update_request(tx: Connection, request: Request, *, expected_revision: int, expected_state: RequestState) -> None:
    """Put a request in the place of what it was, if it is still that (compare and swap).

    Raises:
        NotFound: There is none of that name.
        Conflict: Somebody amended, decided or withdrew it in between.
    """
    table = schema.requests
    expected = and_(table.c.revision == expected_revision, table.c.state == expected_state.value)
    statement = update(table).where(table.c.name == request.name, expected).values(_values(request))
    if tx.execute(statement).rowcount != 1:
        now = rows.get(tx, table, request.name)
        msg = f"'{request.name}' is {now.state} in revision {now.revision} by now; read it again and decide anew."
        raise Conflict(msg, name=request.name, state=now.state, revision=str(now.revision))
    of = schema.request_versions
    kept = tx.execute(select(of.c.version, of.c.digest).where(of.c.request == request.name).order_by(of.c.position)).all()
    if [VersionRef(*row) for row in kept] != list(request.versions):
        tx.execute(delete(of).where(of.c.request == request.name))
        rows.add_all(tx, of, _versions(request))


def add_approval(tx: Connection, request: str, approval: Approval, *, nonce: str) -> None:
    """Add a reviewer's yes or no to the present revision of a request.

    Args:
        tx: The transaction.
        request: Its name.
        approval: The decision.
        nonce: That of the signed statement; with one key it counts once, whatever it is handed in for.

    Raises:
        NotFound: There is no such request.
        AlreadyExists: The reviewer has spoken on this revision, or the statement was handed in before.
    """
    revision = rows.get(tx, schema.requests, request, lock=True).revision
    values = {field: getattr(approval, field) for field in _APPROVAL_FIELDS}
    if not rows.added(tx, schema.approvals, {"request": request, "revision": revision, "nonce": nonce, **values}):
        msg = f"'{approval.reviewer}' has decided on revision {revision} of '{request}', or signed this before; one voice each."
        raise AlreadyExists(msg, name=approval.name, revision=str(revision))


def _values(request: Request) -> dict[str, Any]:
    return {
        "requester": request.requester,
        "organisation": request.organisation,
        "rung": request.rung.value,
        "level": request.level.value,
        "purpose": request.purpose.value,
        "justification": request.justification,
        **budgets.dump("budget", request.budget),
        "duration_s": request.duration_s,
        "state": request.state.value,
        "create_time": request.create_time,
        "expire_time": request.expire_time,
        "revision": request.revision,
        "needed": request.needed,
        "grant": request.grant,
        "reason": request.reason,
        "need": request.need,
        "stated": dump_stated(request.stated),
        "conditions": dump_conditions(request.conditions),
        "match": dump_match(request.match),
        "previous": request.previous,
        "state_time": request.state_time,
    }


def _versions(request: Request) -> list[dict[str, Any]]:
    return [
        {"request": request.name, "position": position, "version": version.name, "digest": version.digest}
        for position, version in enumerate(request.versions)
    ]


def _read(tx: Connection, found: Sequence[Row[Any]]) -> list[Request]:
    """Turn rows into records; versions and approvals of all of them come in one statement each."""
    wanted = [row.name for row in found]
    of, votes, table = schema.request_versions, schema.approvals, schema.requests
    versions: dict[str, list[VersionRef]] = defaultdict(list)
    for row in tx.execute(select(of).where(of.c.request.in_(wanted)).order_by(of.c.request, of.c.position)):
        versions[row.request].append(VersionRef(row.version, row.digest))
    approvals: dict[str, list[Approval]] = defaultdict(list)
    present = and_(votes.c.request == table.c.name, votes.c.revision == table.c.revision)
    given = select(votes).join(table, present).where(table.c.name.in_(wanted)).order_by(votes.c.create_time, votes.c.reviewer)
    for row in tx.execute(given):
        approvals[row.request].append(Approval(**{field: getattr(row, field) for field in _APPROVAL_FIELDS}))
    return [_request(row, versions[row.name], approvals[row.name]) for row in found]


def _request(row: Row[Any], versions: list[VersionRef], approvals: list[Approval]) -> Request:
    return Request(
        name=row.name,
        requester=row.requester,
        organisation=row.organisation,
        versions=tuple(versions),
        rung=Rung(row.rung),
        level=Level(row.level),
        purpose=Purpose(row.purpose),
        justification=row.justification,
        budget=budgets.load("budget", row),
        duration_s=row.duration_s,
        state=RequestState(row.state),
        create_time=row.create_time,
        expire_time=row.expire_time,
        revision=row.revision,
        approvals=tuple(approvals),
        needed=row.needed,
        grant=row.grant,
        reason=row.reason,
        need=row.need,
        stated=load_stated(row.stated),
        conditions=load_conditions(row.conditions),
        match=load_match(row.match),
        previous=row.previous,
        state_time=row.state_time,
    )
