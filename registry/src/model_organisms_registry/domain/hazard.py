"""What each containment level demands before each rung: the one table. Nobody else writes a number of approvals down.

- A demand made of a level or a rung is made of every higher one (`HazardTable` refuses a table where it is not).
- A deployment may tighten the table (`tightened`); nothing is ever loosened, and CL4 is never pulled.
- A level that is not known is CL4.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, TypeVar

from model_organisms.errors import ConfigurationInvalid
from model_organisms.records import Level, Rung

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Demands:
    """What must be there before one rung on one level is granted."""

    approvals: int = 0
    distinct_organisations: bool = False
    """Each approver is of another organisation, so at least one stands outside the requester's."""
    own_organisation_may_approve: bool = True
    """False: no approver is of the requester's organisation."""
    witness: bool = False
    """A witness has cosigned the ledger's head."""
    forbidden: bool = False
    needs_stated_need: bool = False
    """The request says why text and numbers are not enough."""


@dataclass(frozen=True, slots=True)
class LevelRules:
    """What holds for one level, whatever the rung."""

    max_duration: timedelta
    """Longest life of a grant."""
    jail_required: bool = False
    fingerprinted: bool = False


Cell = tuple[Level, Rung]
T = TypeVar("T", Demands, LevelRules)

_LEVEL_STEPS = tuple((Level(level), Level(level - 1)) for level in list(Level)[1:])
_STEPS: tuple[tuple[Cell, Cell], ...] = tuple(
    ((level, rung), (Level(level - down), Rung(rung - 1 + down)))
    for level, rung, down in product(Level, Rung, (1, 0))
    if level > down and rung > 1 - down
)
"""Every cell with each of its lower neighbours, in an order in which a demand carries all the way up."""
_STRICT_WHEN_FALSE = frozenset({"own_organisation_may_approve"})


@dataclass(frozen=True, slots=True)
class HazardTable:
    """The table, complete and monotone; made by this module only.

    Raises:
        ConfigurationInvalid: A cell is missing, or asks less than the cell below it.
    """

    demands: Mapping[Cell, Demands]
    rules: Mapping[Level, LevelRules]

    def __post_init__(self) -> None:
        for cell, below in _STEPS:
            _refuse_looser(self.demands[below], self.demands[cell], f"{cell[0].name}.{cell[1].name.lower()}")
        for level, lower in _LEVEL_STEPS:
            _refuse_looser(self.rules[lower], self.rules[level], level.name)

    def of(self, level: object, rung: Rung) -> Demands:
        """Demands of a rung on a level; a level that is not known asks what CL4 asks."""
        return self.demands[known(level), rung]

    def rules_of(self, level: object) -> LevelRules:
        """Rules of a level; a level that is not known has those of CL4."""
        return self.rules[known(level)]


def known(level: object) -> Level:
    """Read a level; anything that is not one of the four is CL4."""
    try:
        return Level(level) if isinstance(level, int) else Level.CL4
    except ValueError:
        return Level.CL4


def demands(level: object, rung: Rung, *, table: HazardTable | None = None) -> Demands:
    """Demands of a rung on a level, by the shipped table unless another is given."""
    return (table or TABLE).of(level, rung)


def level_rules(level: object, *, table: HazardTable | None = None) -> LevelRules:
    """Rules of a level, by the shipped table unless another is given."""
    return (table or TABLE).rules_of(level)


def tightened(table: HazardTable, overrides: Mapping[str, Mapping[str, int | bool]]) -> HazardTable:
    """Make a stricter table; a demand put on a level or rung is carried to the higher ones.

    Args:
        table: What to start from.
        overrides: By cell (`"CL2.pull"`: fields of `Demands`) or level (`"CL2"`: fields of `LevelRules`, the longest grant
            as `max_duration_s`).

    Returns:
        The stricter table.

    Raises:
        ConfigurationInvalid: A name that is not in the table, a value of the wrong type, or one that would loosen it.
    """
    demanded, ruled = dict(table.demands), dict(table.rules)
    for place, changes in overrides.items():
        level, rung = _place(place)
        if rung is None:
            ruled[level] = _changed(ruled[level], changes, place)
        else:
            demanded[level, rung] = _changed(demanded[level, rung], changes, place)
    for cell, below in _STEPS:
        demanded[cell] = _stricter(demanded[cell], demanded[below])
    for level, lower in _LEVEL_STEPS:
        ruled[level] = _stricter(ruled[level], ruled[lower])
    return HazardTable(demanded, ruled)


def _place(place: str) -> tuple[Level, Rung | None]:
    level, _, rung = place.partition(".")
    # `describe` needs no grant, so a demand written there would bind nobody and only look strict.
    if level not in Level.__members__ or rung not in {"", "sample", "probe", "pull"}:
        msg = f"The hazard table has no place '{place}'; write a level (CL2), or a level and sample, probe or pull (CL2.pull)."
        raise ConfigurationInvalid(msg)
    return Level[level], Rung[rung.upper()] if rung else None


def _changed(cell: T, changes: Mapping[str, int | bool], place: str) -> T:
    values: dict[str, object] = {}
    for name, value in changes.items():
        field = name.removesuffix("_s")
        old = getattr(cell, field, None)
        wanted = int if isinstance(old, timedelta) else type(old)
        if old is None or type(value) is not wanted or (name == field) is isinstance(old, timedelta):
            allowed = ", ".join(f"{f.name}_s" if f.name == "max_duration" else f.name for f in fields(cell))
            msg = f"'{name} = {value!r}' at {place} is not a demand of the hazard table; the demands are {allowed}."
            raise ConfigurationInvalid(msg)
        values[field] = timedelta(seconds=value) if isinstance(old, timedelta) else value
    # The fields were checked one by one above; `replace` cannot be typed for a mapping.
    new: T = replace(cell, **values)  # type: ignore[arg-type]
    if isinstance(new, Demands) and not 0 <= new.approvals <= _MOST_APPROVALS:
        raise ConfigurationInvalid(f"{place} asks for {new.approvals} approvals; write 0 to {_MOST_APPROVALS}.")
    if isinstance(new, LevelRules) and new.max_duration <= timedelta(0):
        raise ConfigurationInvalid(f"Grants at {place} would end before they begin; write max_duration_s above 0.")
    _refuse_looser(cell, new, place)
    return new


def _refuse_looser(floor: T, cell: T, place: str) -> None:
    strict = _stricter(cell, floor)
    looser = [f"{f.name} = {getattr(cell, f.name)}" for f in fields(cell) if getattr(cell, f.name) != getattr(strict, f.name)]
    if looser:
        msg = f"{place} would ask less than it must ({', '.join(looser)}); the hazard table may be tightened, never loosened."
        raise ConfigurationInvalid(msg)


def _stricter(one: T, other: T) -> T:
    """Field by field the stricter of the two."""
    values = {}
    for field in fields(one):
        pair = getattr(one, field.name), getattr(other, field.name)
        less = field.name in _STRICT_WHEN_FALSE or isinstance(pair[0], timedelta)
        values[field.name] = min(pair) if less else max(pair)
    return type(one)(**values)


_MOST_APPROVALS = 9
_TWO_HOUSES = Demands(approvals=2, distinct_organisations=True)
_DANGEROUS = replace(_TWO_HOUSES, own_organisation_may_approve=False, witness=True)

TABLE = HazardTable(
    demands={
        (Level.CL1, Rung.DESCRIBE): Demands(),
        (Level.CL1, Rung.SAMPLE): Demands(),  # any enrolled researcher; the grant still records purpose and budget
        (Level.CL1, Rung.PROBE): Demands(approvals=1),
        (Level.CL1, Rung.PULL): Demands(approvals=1),
        (Level.CL2, Rung.DESCRIBE): Demands(),
        (Level.CL2, Rung.SAMPLE): Demands(approvals=1),
        (Level.CL2, Rung.PROBE): Demands(approvals=1),
        (Level.CL2, Rung.PULL): Demands(approvals=1),
        (Level.CL3, Rung.DESCRIBE): Demands(),
        (Level.CL3, Rung.SAMPLE): _TWO_HOUSES,
        (Level.CL3, Rung.PROBE): _TWO_HOUSES,
        (Level.CL3, Rung.PULL): replace(_TWO_HOUSES, needs_stated_need=True),
        (Level.CL4, Rung.DESCRIBE): Demands(),
        (Level.CL4, Rung.SAMPLE): _DANGEROUS,
        (Level.CL4, Rung.PROBE): _DANGEROUS,
        (Level.CL4, Rung.PULL): replace(_DANGEROUS, needs_stated_need=True, forbidden=True),
    },
    rules={
        Level.CL1: LevelRules(max_duration=timedelta(days=365)),
        Level.CL2: LevelRules(max_duration=timedelta(days=180), jail_required=True, fingerprinted=True),
        Level.CL3: LevelRules(max_duration=timedelta(days=90), jail_required=True, fingerprinted=True),
        Level.CL4: LevelRules(max_duration=timedelta(days=30), jail_required=True, fingerprinted=True),
    },
)
"""The shipped table, as docs and policies state it."""
