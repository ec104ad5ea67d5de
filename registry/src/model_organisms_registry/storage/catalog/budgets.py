"""Budgets as columns, spent and given back by one conditional UPDATE each; grants and sessions share it.

The condition and the sum are one statement, so of any number of parallel spenders only those pass for whom there was enough:
SQLite's writers come one by one, and PostgreSQL checks the condition again on the row as the one before left it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_organisms.errors import BudgetExhausted, Conflict, InvalidArgument
from model_organisms.records import BUDGET_FIELDS, Budget
from sqlalchemy import update

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Table

_LARGEST = 2**53
"""More of anything than can be spent, and small enough that no sum overflows."""


def dump(prefix: str, budget: Budget) -> dict[str, int]:
    """Spread a budget over its columns."""
    return {f"{prefix}_{field}": getattr(budget, field) for field in BUDGET_FIELDS}


def load(prefix: str, row: Row[Any]) -> Budget:
    """Gather a budget from its columns."""
    return Budget(**{field: getattr(row, f"{prefix}_{field}") for field in BUDGET_FIELDS})


def take(tx: Connection, table: Table, name: str, *, amount: Budget, state: str) -> Row[Any] | None:
    """Spend from a row that is in `state` and has enough in every field.

    Returns:
        The row as it is then, or None where nothing was changed; the caller says why.

    Raises:
        InvalidArgument: A field is negative or beyond anything that can be spent.
    """
    _check(amount)
    spent = {field: table.c[f"spent_{field}"] + getattr(amount, field) for field in BUDGET_FIELDS}
    enough = (spent[field] <= table.c[f"budget_{field}"] for field in BUDGET_FIELDS)
    statement = update(table).where(table.c.name == name, table.c.state == state, *enough)
    return tx.execute(
        statement.values({f"spent_{field}": spent[field] for field in BUDGET_FIELDS}).returning(table)
    ).one_or_none()


def give_back(tx: Connection, table: Table, name: str, *, amount: Budget) -> None:
    """Return what was spent and not used, whatever state the row is in.

    Raises:
        Conflict: It is more than was spent, or the row is not there.
    """
    _check(amount)
    left = {field: table.c[f"spent_{field}"] - getattr(amount, field) for field in BUDGET_FIELDS}
    sums = {f"spent_{field}": left[field] for field in BUDGET_FIELDS}
    statement = update(table).where(table.c.name == name, *(left[field] >= 0 for field in BUDGET_FIELDS)).values(sums)
    if tx.execute(statement).rowcount != 1:
        raise Conflict(f"More would go back to '{name}' than was spent of it; give back what one call took, once.", name=name)


def exhausted(name: str, *, budget: Budget, spent: Budget, amount: Budget) -> BudgetExhausted:
    """Say which fields fall short, and what is left of each."""
    left = budget.minus(spent)
    short = left.minus(amount).exceeded()
    told = ", ".join(f"{field}: {getattr(left, field)} left, {getattr(amount, field)} asked" for field in short)
    message = f"The budget of '{name}' does not cover this ({told}); ask for less, or request a larger budget."
    return BudgetExhausted(message, name=name, fields=",".join(short), **{f"left_{f}": str(getattr(left, f)) for f in short})


def _check(amount: Budget) -> None:
    for field in BUDGET_FIELDS:
        if not 0 <= getattr(amount, field) <= _LARGEST:
            raise InvalidArgument(f"An amount of {getattr(amount, field)} {field} cannot be spent; give 0 to {_LARGEST}.")
