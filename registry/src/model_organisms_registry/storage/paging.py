"""Listings in pages whose cost does not grow with the table; only `catalog/` should be here.

A page token is base64url of `{"v": 1, "of": which listing, "after": the last key}`. It is opaque to callers and proves nothing:
a forged one moves the start of a listing and shows no row that the listing's own conditions hide.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from model_organisms.errors import InvalidArgument
from model_organisms.records import Page
from sqlalchemy import Integer, bindparam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import BindParameter, ColumnElement, Connection, Row, Select

T = TypeVar("T")

DEFAULT_SIZE = 50
LARGEST_SIZE = 1000
MOST_BYTES = 3 << 20
"""A page goes into one message, and messages have at most 4 MiB."""
_LONGEST_TOKEN = 1024
_WIDEST = 2**63
_ORDERED: WeakKeyDictionary[Select[Any], dict[tuple[bool, bool], Select[Any]]] = WeakKeyDictionary()
"""By statement, and for as long as somebody keeps it: most listings build theirs anew each time, and those must not pile up."""


def page(
    tx: Connection,
    statement: Select[Any],
    *,
    key: ColumnElement[str] | ColumnElement[int],
    newest_first: bool,
    listing: tuple[object, ...],
    page_size: int,
    page_token: str,
    read: Callable[[Sequence[Row[Any]]], Sequence[T]],
    weight: ColumnElement[int] | None = None,
    heaviest: int = MOST_BYTES,
) -> Page[T]:
    """Read one page, starting after the last key of the page before.

    Args:
        tx: The transaction.
        statement: All rows of the listing, without order and limit.
        key: The unique column the listing is ordered by.
        newest_first: Whether the order descends.
        listing: Name and conditions of the listing; a token is good for the same ones only.
        page_size: Rows wanted; 0 for `DEFAULT_SIZE`, and never more than `LARGEST_SIZE` are given.
        page_token: Token of the page before, empty for the first.
        read: Turns all rows of the page into records at once.
        weight: Bytes of a row, where rows may be long: a page ends before `MOST_BYTES` of them, but has one row at least.
        heaviest: The most a row can weigh; where as many rows as asked for cannot weigh too much, none is weighed.

    Returns:
        The page, with a token if there is more.

    Raises:
        InvalidArgument: The size is negative, or the token is not of this listing.
    """
    if page_size < 0:
        raise InvalidArgument(f"A page of {page_size} items cannot be; ask for 1 to {LARGEST_SIZE}, or 0 for {DEFAULT_SIZE}.")
    size = min(page_size or DEFAULT_SIZE, LARGEST_SIZE)
    after = read_token(page_token, listing=listing, kind=key.type.python_type) if page_token else None
    ordered = _ordered(statement, key, newest_first=newest_first, resumed=bool(page_token))
    if weight is not None and size * heaviest > MOST_BYTES:
        weights = ordered.with_only_columns(weight)
        size = _fitting(tx.execute(weights, {"page_after": after, "page_rows": size}).scalars(), size)
    # one row more than asked for tells whether there is a next page, without counting
    rows = tx.execute(ordered, {"page_after": after, "page_rows": size + 1}).all()
    shown = rows[:size]
    token = write_token(shown[-1].page_key, listing=listing) if len(rows) > size else ""
    return Page(items=tuple(read(shown)), next_page_token=token)


def _ordered(
    statement: Select[Any], key: ColumnElement[str] | ColumnElement[int], *, newest_first: bool, resumed: bool
) -> Select[Any]:
    """Order and limit a listing; where a listing keeps its statement, once."""
    known = _ORDERED.setdefault(statement, {})
    if (newest_first, resumed) in known:
        return known[newest_first, resumed]
    made = known[newest_first, resumed] = _in_pages(statement, key, newest_first=newest_first, resumed=resumed)
    return made


def _in_pages(
    statement: Select[Any], key: ColumnElement[str] | ColumnElement[int], *, newest_first: bool, resumed: bool
) -> Select[Any]:
    if resumed:
        after: BindParameter[Any] = bindparam("page_after", type_=key.type)
        statement = statement.where(key < after if newest_first else key > after)
    ordered = statement.order_by(key.desc() if newest_first else key.asc())
    return ordered.add_columns(key.label("page_key")).limit(bindparam("page_rows", type_=Integer))


def _fitting(weights: Iterable[int], size: int) -> int:
    """Count the first rows that weigh no more than `MOST_BYTES` together."""
    total = 0
    for count, weight in enumerate(weights):
        total += weight
        if total > MOST_BYTES:
            return max(1, count)
    return size


def every(listing: Callable[..., Page[T]]) -> Iterator[T]:
    """Read a listing to its end.

    Args:
        listing: Takes `page_size` and `page_token`.
    """
    token = ""
    while True:
        found = listing(page_size=LARGEST_SIZE, page_token=token)
        yield from found.items
        if not (token := found.next_page_token):
            return


def write_token(after: str | int, *, listing: tuple[object, ...]) -> str:
    """Print the token of the page after a key."""
    document = json.dumps({"v": 1, "of": _fingerprint(listing), "after": after}, separators=(",", ":"))
    return urlsafe_b64encode(document.encode()).decode().rstrip("=")


def read_token(token: str, *, listing: tuple[object, ...], kind: type) -> Any:  # noqa: ANN401 - a str or an int, as `kind` says
    """Read a token back, and refuse every text that `write_token` would not have printed for this listing.

    Raises:
        InvalidArgument: It is another listing's, of another version, or no token.
    """
    try:
        if len(token) > _LONGEST_TOKEN:
            raise InvalidArgument("The page token is longer than any that was given out; start from the first page.")
        after: Any = json.loads(urlsafe_b64decode(token + "=" * (-len(token) % 4)))["after"]
        genuine = _fits(after, kind) and write_token(after, listing=listing) == token
    except (ValueError, TypeError, KeyError, RecursionError):
        genuine = False
    if not genuine:
        raise InvalidArgument("The page token is not of this listing; repeat the call that gave it with the same filters.")
    return after


def _fits(after: object, kind: type) -> bool:
    return type(after) is kind and (not isinstance(after, int) or -_WIDEST <= after < _WIDEST)


def _fingerprint(listing: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(listing).encode("utf-8", "backslashreplace")).hexdigest()[:16]
