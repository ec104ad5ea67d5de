"""Which organisms a caller finds: filters, visibility and the pages of the listing. Whose eyes it is for is decided elsewhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from model_organisms.records import Level, Organism, Page, Purpose
from sqlalchemy import and_, false, func, or_, select, true

from model_organisms_registry.domain.organisms import DESCRIPTION_LIMIT
from model_organisms_registry.storage import schema
from model_organisms_registry.storage.codecs import load_conditions, load_texts
from model_organisms_registry.storage.paging import page

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row, Select

_WORD = re.compile(r"[^\W_]{1,64}")
_LAST = "\U0010ffff"
_BYTES = 4
"""A character has so many, at most."""
_WEIGHT = _BYTES * func.length(schema.organisms.c.description)


@dataclass(frozen=True, slots=True)
class OrganismFilter:
    """Conditions of a listing; what is empty does not narrow."""

    levels: tuple[Level, ...] = ()
    owner: str = ""
    base_model: str = ""
    trait: str = ""
    text: str = ""
    """Words; each must begin a word of the name, display name, description, base model or traits."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """For whom a listing is: hidden organisms are shown to their owner and to holders of a grant that was not revoked."""

    user: str | None
    """None shows everything."""


EVERYTHING = Visibility(user=None)
"""What reviewers see."""


def visible(tx: Connection, name: str, visibility: Visibility) -> bool:
    """Say whether an organism is there and shown."""
    table = schema.organisms
    return tx.execute(select(table.c.name).where(table.c.name == name, _shown(visibility))).one_or_none() is not None


def organisms(
    tx: Connection,
    *,
    filter: OrganismFilter = OrganismFilter(),  # noqa: A002 - AIP-132 calls it so; the default is frozen
    visible: Visibility,
    page_size: int = 0,
    page_token: str = "",
) -> Page[Organism]:
    """List organisms by name."""
    statement, key = _listing(filter, visible)
    return page(
        tx,
        statement,
        key=key,
        newest_first=False,
        listing=("organisms", filter, visible),
        page_size=page_size,
        page_token=page_token,
        read=lambda found: [read_organism(row) for row in found],
        weight=_WEIGHT,
        heaviest=_BYTES * DESCRIPTION_LIMIT,
    )


@lru_cache(maxsize=1024)
def _listing(wanted: OrganismFilter, visible: Visibility) -> tuple[Select[Any], ColumnElement[str]]:
    """Build the statement of a listing, once for the same question: that takes longer than running it."""
    table = schema.organisms
    statement: Select[Any] = select(table).where(_shown(visible))
    key: ColumnElement[str] = table.c.name
    if wanted.levels:
        statement = statement.where(table.c.level.in_([level.value for level in wanted.levels]))
    if wanted.owner:
        statement = statement.where(table.c.owner == wanted.owner)
    if wanted.base_model:
        statement = statement.where(table.c.base_model == wanted.base_model)
    if wanted.trait:
        key = schema.organism_traits.c.organism  # its index is in the order of the pages
        statement = statement.join(schema.organism_traits, key == table.c.name)
        statement = statement.where(schema.organism_traits.c.trait == wanted.trait)
    if wanted.text:
        statement = statement.where(_matches(wanted.text))
    return statement, key


def _shown(visibility: Visibility) -> ColumnElement[bool]:
    if visibility.user is None:
        return true()
    table, held_by, grants = schema.organisms, schema.grant_versions, schema.grants
    granted = (
        select(held_by.c.grant)
        .join(grants, grants.c.name == held_by.c.grant)
        .where(held_by.c.user == visibility.user, held_by.c.organism == table.c.name, grants.c.state == "active")
        .correlate(table)
        .exists()
    )
    return or_(table.c.hidden == false(), table.c.owner == visibility.user, granted)


def words(text: str) -> frozenset[str]:
    """Split a text into the words by which it is found."""
    return frozenset(_WORD.findall(text.casefold()))


def _matches(text: str) -> ColumnElement[bool]:
    """Every word asked for begins some word of the card; a text without words matches nothing."""
    word, of = schema.organism_words.c.word, schema.organism_words.c.organism
    asked = sorted(words(text))
    found = (schema.organisms.c.name.in_(select(of).where(word >= start, word < start + _LAST)) for start in asked)
    return and_(true(), *found) if asked else false()


@lru_cache(maxsize=1024)
def read_organism(row: Row[Any]) -> Organism:
    """Turn a row into the record; the same row gives the same one, which nobody can change."""
    return Organism(
        name=row.name,
        display_name=row.display_name,
        description=row.description,
        owner=row.owner,
        level=Level(row.level),
        base_model=row.base_model,
        traits=load_texts(row.traits),
        hidden=row.hidden,
        create_time=row.create_time,
        latest=row.latest,
        purposes=tuple(Purpose(purpose) for purpose in load_texts(row.purposes)),
        conditions=load_conditions(row.conditions),
    )
