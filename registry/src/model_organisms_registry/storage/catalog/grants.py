"""Grants and what was spent of them, as rows. Whether one covers a call is decided elsewhere."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.errors import Conflict, GrantRevoked, InvalidArgument
from model_organisms.records import Budget, Grant, GrantState, Level, Page, Purpose, Rung, VersionRef
from sqlalchemy import select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import budgets, rows
from model_organisms_registry.storage.codecs import dump_conditions, load_conditions
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row, Select


def add_grant(tx: Connection, grant: Grant) -> None:
    """Add a grant.

    Raises:
        AlreadyExists: The name is taken.
    """
    values = {
        "name": grant.name,
        "user": grant.user,
        "request": grant.request,
        "rung": grant.rung.value,
        "purpose": grant.purpose.value,
        **budgets.dump("budget", grant.budget),
        **budgets.dump("spent", grant.spent),
        "state": grant.state.value,
        "create_time": grant.create_time,
        "expire_time": grant.expire_time,
        "revoke_time": None,
        "reason": grant.reason,
        "level": grant.level.value,
        "conditions": dump_conditions(grant.conditions),
    }
    rows.add(tx, schema.grants, values, name=grant.name)
    covered, veiled = [], []
    for position, version in enumerate(grant.versions):
        at = {"grant": grant.name, "position": position, "digest": version.digest}
        if names.in_game(version.name):
            veiled.append({**at, "alias": version.name})
        else:
            named = {"user": grant.user, "organism": names.organism_of(version.name), "version": version.name}
            covered.append({**at, **named})
    rows.add_all(tx, schema.grant_versions, covered)
    rows.add_all(tx, schema.grant_aliases, veiled)


def grant(tx: Connection, name: str) -> Grant:
    """Read a grant.

    Raises:
        NotFound: There is none of that name.
    """
    return _read(tx, [rows.get(tx, schema.grants, name)])[0]


def lock(tx: Connection, name: str) -> None:
    """Keep a grant as it is until the transaction ends.

    Raises:
        NotFound: There is none of that name.
    """
    rows.get(tx, schema.grants, name, lock=True)


def grants(
    tx: Connection,
    *,
    user: str = "",
    state: GrantState | None = None,
    version: str = "",
    now: datetime | None = None,
    page_size: int = 0,
    page_token: str = "",
) -> Page[Grant]:
    """List grants, newest first; what is empty does not narrow.

    Args:
        tx: The transaction.
        user: Only this user's.
        state: Only in this state. Rows know `active` and `revoked`; with `now`, an active one past its time is `expired`.
        version: Only those that cover this version.
        now: The moment to judge expiry by; needed to ask for the expired.
        page_size: Grants a page.
        page_token: Where to go on.

    Raises:
        InvalidArgument: The expired are asked for without a time, or the token is not of this listing.
    """
    table = schema.grants
    statement: Select[Any] = select(table)
    key = table.c.name
    if user:
        statement = statement.where(table.c.user == user)
    if state is GrantState.EXPIRED and now is None:
        raise InvalidArgument("Expiry is read from the clock; say at which moment the grants shall have expired.")
    if state is not None:
        kept = GrantState.REVOKED if state is GrantState.REVOKED else GrantState.ACTIVE
        statement = statement.where(table.c.state == kept.value)
    if now is not None and state in {GrantState.ACTIVE, GrantState.EXPIRED}:
        statement = statement.where(table.c.expire_time > now if state is GrantState.ACTIVE else table.c.expire_time <= now)
    if version:
        veiled, named = schema.grant_aliases, schema.grant_versions
        of, column = (veiled, veiled.c.alias) if names.in_game(version) else (named, named.c.version)
        key = of.c.grant  # its index is in the order of the pages
        statement = statement.join(of, key == table.c.name).where(column == version)
    return page(
        tx,
        statement,
        key=key,
        newest_first=True,
        listing=("grants", user, state, version),  # not `now`: the clock moves from page to page
        page_size=page_size,
        page_token=page_token,
        read=lambda found: _read(tx, found),
    )


def revoke_grant(tx: Connection, name: str, reason: str, time: datetime) -> None:
    """Take a grant back; the first revocation is kept.

    Raises:
        NotFound: There is none of that name.
        Conflict: It was revoked before.
    """
    table = schema.grants
    statement = update(table).where(table.c.name == name, table.c.state == GrantState.ACTIVE.value)
    values = {"state": GrantState.REVOKED.value, "reason": reason, "revoke_time": time}
    if tx.execute(statement.values(values)).rowcount != 1:
        rows.get(tx, table, name)
        raise Conflict(f"'{name}' was revoked before; nothing is left to do.", name=name)


def active_grants(tx: Connection, *, user: str, version_digest: str, now: datetime) -> tuple[Grant, ...]:
    """Read a user's grants on a version that were not revoked and have not expired, newest first."""
    table, of = schema.grants, schema.grant_versions
    statement = select(table).join(of, of.c.grant == table.c.name)
    statement = statement.where(of.c.user == user, of.c.digest == version_digest)
    statement = statement.where(table.c.state == GrantState.ACTIVE.value, table.c.expire_time > now)
    # one grant may name the same bytes twice, as versions of two organisms
    found = {row.name: row for row in tx.execute(statement)}
    return tuple(_read(tx, [found[name] for name in sorted(found, reverse=True)]))


def spend(tx: Connection, grant_name: str, amount: Budget) -> Grant:
    """Spend from a grant, all fields or none.

    Raises:
        BudgetExhausted: A field has less left than asked; `details` says how much.
        GrantRevoked: It was taken back.
        NotFound: There is none of that name.
    """
    row = budgets.take(tx, schema.grants, grant_name, amount=amount, state=GrantState.ACTIVE.value)
    if row is None:
        # held, so that what the message says of the row is still so when the caller reads it
        kept = rows.get(tx, schema.grants, grant_name, lock=True)
        if kept.state != GrantState.ACTIVE.value:
            raise GrantRevoked(f"'{grant_name}' was taken back; request access again if you still need it.", name=grant_name)
        row = budgets.take(tx, schema.grants, grant_name, amount=amount, state=GrantState.ACTIVE.value)
        if row is None:  # it was not a refund between the two looks that made the difference
            left = budgets.load("budget", kept), budgets.load("spent", kept)
            raise budgets.exhausted(grant_name, budget=left[0], spent=left[1], amount=amount)
    return _read(tx, [row])[0]


def refund(tx: Connection, grant_name: str, amount: Budget) -> None:
    """Return what a call took and did not use.

    Raises:
        Conflict: It is more than was spent.
        NotFound: There is none of that name.
    """
    rows.get(tx, schema.grants, grant_name)
    budgets.give_back(tx, schema.grants, grant_name, amount=amount)


def _read(tx: Connection, found: Sequence[Row[Any]]) -> list[Grant]:
    of, veiled = schema.grant_versions, schema.grant_aliases
    wanted = [row.name for row in found]
    versions: dict[str, list[VersionRef]] = defaultdict(list)
    for row in tx.execute(select(of).where(of.c.grant.in_(wanted)).order_by(of.c.grant, of.c.position)):
        versions[row.grant].append(VersionRef(row.version, row.digest))
    if playing := [row.name for row in found if names.in_game(row.request)]:
        for row in tx.execute(select(veiled).where(veiled.c.grant.in_(playing)).order_by(veiled.c.grant, veiled.c.position)):
            versions[row.grant].append(VersionRef(row.alias, row.digest))
    return [_grant(row, versions[row.name]) for row in found]


def _grant(row: Row[Any], versions: list[VersionRef]) -> Grant:
    return Grant(
        name=row.name,
        user=row.user,
        request=row.request,
        versions=tuple(versions),
        rung=Rung(row.rung),
        purpose=Purpose(row.purpose),
        budget=budgets.load("budget", row),
        spent=budgets.load("spent", row),
        state=GrantState(row.state),
        create_time=row.create_time,
        expire_time=row.expire_time,
        reason=row.reason,
        level=Level(row.level),
        conditions=load_conditions(row.conditions),
    )
