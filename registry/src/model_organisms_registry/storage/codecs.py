"""Values as the database keeps them, and back: times, text, and tuples of records as JSON. No SQL, no table."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.formats.conditions import parse_condition, print_condition
from model_organisms.records import (
    AdapterFacts,
    BundleFile,
    Condition,
    Erratum,
    FileKind,
    Match,
    Modifier,
    ModuleFacts,
    Outcome,
    Reason,
    Stated,
)
from sqlalchemy import BigInteger, Text
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A moment, kept as whole microseconds since 1970 in UTC: both databases compare and store it alike."""

    impl = BigInteger
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """A decorator does not say it by itself."""
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Count the microseconds; a time without a zone is refused, because its moment is a guess."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidArgument("A time came without a time zone; give one in UTC.")
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Count them back."""
        del dialect
        return None if value is None else _EPOCH + value * _MICROSECOND


class Words(TypeDecorator[str]):
    """Text that both databases keep, order and compare alike: by code point, without NUL and lone surrogates."""

    impl = Text
    cache_ok = True

    @property
    def python_type(self) -> type[str]:
        """A decorator does not say it by itself; page tokens are checked by it."""
        return str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Order by code point on PostgreSQL too, whatever locale its cluster has; pages depend on it."""
        return Text(collation="C") if dialect.name == "postgresql" else dialect.type_descriptor(Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Refuse here what PostgreSQL cannot keep, so that SQLite does not take it either."""
        del dialect
        if value is not None and ("\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value))):
            raise InvalidArgument("The text holds a NUL or half of a surrogate pair; remove it.")
        return value


def dump_texts(texts: Iterable[str]) -> str:
    """Print short texts, in their order."""
    return _dump(list(texts))


def load_texts(kept: str) -> tuple[str, ...]:
    """Read what `dump_texts` printed."""
    return tuple(json.loads(kept))


def dump_conditions(conditions: Iterable[Condition]) -> str:
    """Print conditions as texts, in their order."""
    return _dump([print_condition(condition) for condition in conditions])


def load_conditions(kept: str) -> tuple[Condition, ...]:
    """Read what `dump_conditions` printed; what a newer program wrote is a condition that is not understood, not a fault."""
    return tuple(_condition(text) for text in json.loads(kept))


def _condition(text: str) -> Condition:
    try:
        return parse_condition(text)
    except InvalidArgument:
        return Condition(Modifier.UNSPECIFIED)


def dump_stated(stated: Stated) -> str:
    """Print what a requester states."""
    return _dump(
        {
            "project": stated.project,
            "accepts": [print_condition(condition) for condition in stated.accepts],
            "declines": [modifier.value for modifier in stated.declines],
            "until": _micros(stated.until),
            "asserted": _micros(stated.assert_time),
        }
    )


def load_stated(kept: str) -> Stated:
    """Read what `dump_stated` printed; an empty object states nothing."""
    raw = json.loads(kept)
    return Stated(
        project=raw.get("project", ""),
        accepts=tuple(_condition(text) for text in raw.get("accepts", ())),
        declines=tuple(Modifier(word) for word in raw.get("declines", ())),
        until=_instant(raw.get("until")),
        assert_time=_instant(raw.get("asserted")),
    )


def dump_match(match: Match | None) -> str:
    """Print how a request fitted."""
    if match is None:
        return _dump(None)
    reasons = [[reason.outcome.value, reason.about, reason.organism, reason.text] for reason in match.reasons]
    return _dump({"outcome": match.outcome.value, "reasons": reasons})


def load_match(kept: str) -> Match | None:
    """Read what `dump_match` printed."""
    raw = json.loads(kept)
    if raw is None:
        return None
    reasons = (Reason(Outcome(outcome), about, organism, text) for outcome, about, organism, text in raw["reasons"])
    return Match(Outcome(raw["outcome"]), tuple(reasons))


def dump_files(files: Iterable[BundleFile]) -> str:
    """Print the files of a bundle, one short array each."""
    return _dump([[file.path, file.size, file.sha256, file.kind.value] for file in files])


def load_files(kept: str) -> tuple[BundleFile, ...]:
    """Read what `dump_files` printed."""
    return tuple(BundleFile(path, size, sha256, FileKind(kind)) for path, size, sha256, kind in json.loads(kept))


def dump_facts(facts: Iterable[AdapterFacts]) -> str:
    """Print adapters' facts; modules come by the hundred, so each is an array and not an object."""
    return _dump([{**_fields(adapter), "modules": [_row(module) for module in adapter.modules]} for adapter in facts])


def load_facts(kept: str) -> tuple[AdapterFacts, ...]:
    """Read what `dump_facts` printed."""
    return tuple(
        AdapterFacts(
            path=adapter["path"],
            dtype=adapter["dtype"],
            parameters=adapter["parameters"],
            ranks=tuple(adapter["ranks"]),
            layers=tuple(adapter["layers"]),
            target_modules=tuple(adapter["target_modules"]),
            alpha=adapter["alpha"],
            rslora=adapter["rslora"],
            modules=tuple(ModuleFacts(*module) for module in adapter["modules"]),
        )
        for adapter in json.loads(kept)
    )


def _micros(time: datetime | None) -> int | None:
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else _EPOCH + micros * _MICROSECOND


def dump_errata(errata: Iterable[Erratum]) -> str:
    """Print the errata of a version, one short array each."""
    return _dump([[e.attestation, e.author, e.text, (e.create_time - _EPOCH) // _MICROSECOND, e.successor] for e in errata])


def load_errata(kept: str) -> tuple[Erratum, ...]:
    """Read what `dump_errata` printed."""
    return tuple(
        Erratum(name, author, said, _EPOCH + time * _MICROSECOND, successor)
        for name, author, said, time, successor in json.loads(kept)
    )


def _fields(adapter: AdapterFacts) -> dict[str, Any]:
    names = ("path", "dtype", "parameters", "ranks", "layers", "target_modules", "alpha", "rslora")
    return {name: getattr(adapter, name) for name in names}


def _row(module: ModuleFacts) -> list[str | int | float]:
    return [module.module, module.rank, module.scaling, module.norm, module.in_features, module.out_features]


def _dump(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise InvalidArgument("A number to be kept is not finite; compute it again from finite weights.") from error
