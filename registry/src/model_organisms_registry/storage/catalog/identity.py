"""Accounts, their keys, enrolment codes and denied certificates as rows. Who may do what is decided elsewhere."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, Conflict, EnrolmentRefused, NotFound
from model_organisms.records import Page, Role, User, UserState
from sqlalchemy import and_, bindparam, exists, func, or_, select, update

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows
from model_organisms_registry.storage.codecs import dump_texts
from model_organisms_registry.storage.database import held
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row

_DENIED = exists().where(schema.denied_certificates.c.thumbprint == bindparam("thumbprint"))
_CALLER = select(schema.users, _DENIED.label("denied")).where(schema.users.c.name == bindparam("name"))
"""Built once: making a statement costs as much as running it."""


def key_id(identity_key: bytes) -> str:
    """Name an identity key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(identity_key).hexdigest()[:16]


def add_user(tx: Connection, user: User) -> None:
    """Open an account.

    Raises:
        AlreadyExists: The name or the identity key is taken.
    """
    values = {
        "name": user.name,
        "display_name": user.display_name,
        "organisation": user.organisation,
        "roles": dump_texts(sorted(role.value for role in user.roles)),
        "state": user.state.value,
        "create_time": user.create_time,
        "identity_key": user.identity_key,
        "sealing_key": user.sealing_key,
        "key_id": _key_id(user),
    }
    rows.add(tx, schema.users, values, name=user.name)


def user(tx: Connection, name: str, *, lock: bool = False) -> User:
    """Read an account.

    Args:
        tx: The transaction.
        name: Its name.
        lock: Keep it as it is until the transaction ends; for who decides on it what becomes of it.

    Raises:
        NotFound: There is none of that name.
    """
    return _user(rows.get(tx, schema.users, name, lock=lock))


def caller(tx: Connection, name: str, thumbprint: str) -> tuple[User, bool]:
    """Read the account that a certificate names, and whether the certificate is refused: what every call begins with.

    Raises:
        NotFound: There is no account of that name.
    """
    row = tx.execute(_CALLER, {"name": name, "thumbprint": thumbprint}).one_or_none()
    if row is None:
        raise NotFound.named(name)
    return _user(row), bool(row.denied)


def users(tx: Connection, *, page_size: int = 0, page_token: str = "") -> Page[User]:
    """List accounts by name."""
    return page(
        tx,
        select(schema.users),
        key=schema.users.c.name,
        newest_first=False,
        listing=("users",),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [_user(row) for row in found],
    )


def reviewers(tx: Connection) -> list[User]:
    """Read the active reviewers."""
    table = schema.users
    reviewer = table.c.roles.contains(f'"{Role.REVIEWER}"')  # one of the quoted texts in their list
    found = tx.execute(select(table).where(table.c.state == UserState.ACTIVE.value, reviewer).order_by(table.c.name))
    return [_user(row) for row in found]


def other_active_admins(tx: Connection, name: str) -> int:
    """Count the active admins besides one account, and in a writing transaction hold them all.

    Two admins who stop each other at one moment must not each count the other.
    """
    table = schema.users
    admin = table.c.roles.contains(f'"{Role.ADMIN}"')  # one of the quoted texts in their list
    standing = select(table.c.name).where(table.c.state == UserState.ACTIVE.value, admin).order_by(table.c.name)
    return sum(found != name for found in tx.scalars(held(tx, standing)))


def counted_admins(tx: Connection, *, suspended_since: datetime) -> int:
    """Count the enrolled admins: the active ones, and those who were suspended only lately."""
    table = schema.users
    admin = table.c.roles.contains(f'"{Role.ADMIN}"')  # one of the quoted texts in their list
    counts = or_(table.c.state == UserState.ACTIVE.value, table.c.suspend_time > suspended_since)
    return int(tx.execute(select(func.count()).select_from(table).where(admin, table.c.key_id.is_not(None), counts)).scalar_one())


def change_user(tx: Connection, user: User, *, expected: User, suspend_time: datetime | None = None) -> None:
    """Give an account another state, other keys, or both, if it stands as the caller read it (compare and swap).

    Args:
        tx: The transaction.
        user: As it shall be.
        expected: As it was read.
        suspend_time: Since when it is stopped, where that is what changes.

    Raises:
        NotFound: There is none of that name.
        AlreadyExists: Another account has this identity key.
        Conflict: Its state or its keys were changed in between.
    """
    table, name, key, before = schema.users, user.name, _key_id(user), _key_id(expected)
    # asked first for the message only: of two accounts that race for a key, the unique index stops the second
    if key != before and tx.execute(select(exists().where(table.c.key_id == key, table.c.name != name))).scalar_one():
        raise AlreadyExists("This identity key belongs to another account; make new keys with `mo login`.", name=name)
    values: dict[str, Any] = {"identity_key": user.identity_key, "sealing_key": user.sealing_key, "key_id": key}
    if user.state is not expected.state:
        values |= {"state": user.state.value, "suspend_time": suspend_time}
    still = and_(table.c.state == expected.state.value, table.c.key_id.is_not_distinct_from(before))
    if tx.execute(update(table).where(table.c.name == name, still).values(values)).rowcount != 1:
        now = rows.get(tx, table, name).state
        raise Conflict(f"'{name}' was changed meanwhile and is {now} by now; read it again.", name=name, state=now)


def add_enrolment(tx: Connection, code_hash: str, user: str, expire_time: datetime, replaces: str = "") -> None:
    """Keep the hash of a code that will enrol a user once, in place of a key that is lost if it says so.

    Raises:
        AlreadyExists: The code was given out before.
    """
    values = {"code_hash": code_hash, "user": user, "expire_time": expire_time, "use_time": None, "replaces": replaces or None}
    if not rows.added(tx, schema.enrolments, values):
        raise AlreadyExists("This enrolment code was given out before; make a new one.")


def void_enrolments(tx: Connection, user: str, now: datetime) -> None:
    """Use up every code that was given out for an account."""
    codes = schema.enrolments
    tx.execute(update(codes).where(codes.c.user == user, codes.c.use_time.is_(None)).values(use_time=now))


def use_enrolment(tx: Connection, code_hash: str, now: datetime) -> tuple[str, str]:
    """Use a code up, and say whose it was, and which key it may replace.

    Raises:
        EnrolmentRefused: It is wrong, used or expired; the three read alike, so that guessing teaches nothing.
    """
    codes = schema.enrolments
    fresh = (codes.c.code_hash == code_hash, codes.c.use_time.is_(None), codes.c.expire_time > now)
    # the test and the mark are one statement: of two calls with one code, one meets no row
    used = update(codes).where(*fresh).values(use_time=now).returning(codes.c.user, codes.c.replaces)
    found = tx.execute(used).one_or_none()
    if found is None:
        raise EnrolmentRefused("The ticket is wrong, used or expired; ask an admin for a new one.")
    return found.user, found.replaces or ""


def deny_certificate(tx: Connection, thumbprint: str, reason: str, time: datetime) -> None:
    """Refuse a certificate from now on; the first reason is kept."""
    rows.added(tx, schema.denied_certificates, {"thumbprint": thumbprint, "reason": reason, "create_time": time})


def _key_id(user: User) -> str | None:
    return key_id(user.identity_key) if user.identity_key else None


def _user(row: Row[Any]) -> User:
    return User(
        name=row.name,
        display_name=row.display_name,
        organisation=row.organisation,
        roles=frozenset(Role(role) for role in json.loads(row.roles)),
        state=UserState(row.state),
        create_time=row.create_time,
        identity_key=row.identity_key,
        sealing_key=row.sealing_key,
    )
