"""The ledger's three tables, on the registry's one metadata; nobody outside `ledger/` reads or writes them.

- `ledger_pending`: entries that a committed transaction wants in the ledger, in no order yet. Emptied by the sequencer.
- `ledger_entries`: entries with their index. Rows are only ever inserted; those at or past the head's size are staged: their
  order is fixed, but no signed head covers them yet.
- `ledger_head`: one row, the newest signed head. Its compare-and-swap is the commit point of the ledger.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, Integer, LargeBinary, Table

from model_organisms_registry.storage.schema import metadata

ROW = 1
"""Key of the head's only row."""

_BIG = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only where the column is declared INTEGER; its integers have 64 bits all the same."""

pending = Table(
    "ledger_pending",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("body", LargeBinary, nullable=False),
)

entries = Table(
    "ledger_entries",
    metadata,
    Column("idx", _BIG, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
    CheckConstraint("idx >= 0", name="idx_counts"),
)

head = Table(
    "ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
    CheckConstraint(f"id = {ROW}", name="only_row"),
    CheckConstraint("size >= 0", name="size_counts"),
)
