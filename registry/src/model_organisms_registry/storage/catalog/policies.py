"""Policy sets that were adopted, one row each, in order; the newest stands. What they say is read elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import Conflict
from sqlalchemy import select

from model_organisms_registry.storage import schema
from model_organisms_registry.storage.catalog import rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Adopted:
    """A set that was adopted."""

    number: int
    """1 for the first, and one more for each that followed."""
    digest: str
    """As it was signed."""
    texts: Mapping[str, str]
    """Its files, without the two that come with the program; none where the set is the program's own."""


def newest(tx: Connection) -> Adopted | None:
    """Read the set that stands; None before there is one."""
    table = schema.policy_sets
    row = tx.execute(select(table).order_by(table.c.number.desc()).limit(1)).one_or_none()
    return None if row is None else Adopted(row.number, row.digest, json.loads(row.texts))


def adopt(tx: Connection, adopted: Adopted, now: datetime) -> None:
    """Put a set in the place of the one before it.

    Raises:
        Conflict: Another was adopted in between.
    """
    values = {"number": adopted.number, "digest": adopted.digest, "texts": json.dumps(dict(adopted.texts)), "create_time": now}
    if not rows.added(tx, schema.policy_sets, values):
        raise Conflict("Other policies were adopted meanwhile; look what stands, and propose again.")
