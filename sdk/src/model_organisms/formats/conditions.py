"""Conditions as text: what a reviewer signs, a command line takes, and a row keeps. What they mean for a request is not said.

    no-finetune   time-limit=2592000s   publish-delay=7776000s   project=probe-2026   institution=organisations/example-lab

There is one way to write each: a condition that could be written in two could be read as two.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import InvalidArgument
from model_organisms.formats import strict_json
from model_organisms.records import Condition, Modifier

if TYPE_CHECKING:
    from collections.abc import Iterable

LASTING = frozenset({Modifier.TIME_LIMIT, Modifier.PUBLISH_DELAY})
"""Those with a duration."""
NAMED = frozenset({Modifier.PROJECT, Modifier.INSTITUTION})
"""Those with a name."""
LONGEST_S = 315_360_000
"""Ten years."""
_PROJECT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SECONDS = re.compile(r"([1-9][0-9]{0,8})s", re.ASCII)


def check(condition: Condition) -> Condition:
    """Return a condition that is understood: one of the modifiers, with the value it has and no other.

    Raises:
        InvalidArgument: It is not.
    """
    modifier = condition.modifier
    if modifier is Modifier.UNSPECIFIED or modifier not in set(Modifier):
        raise InvalidArgument("A condition is none that this registry understands; leave it out.", field="conditions")
    lasting = 0 < condition.duration_s <= LONGEST_S if modifier in LASTING else condition.duration_s == 0
    if not lasting or (modifier not in NAMED and condition.name):
        raise _wrong(modifier)
    if modifier is Modifier.PROJECT:
        project(condition.name)
    if modifier is Modifier.INSTITUTION:
        names.check("organisation", condition.name)
    return condition


def understood(condition: Condition | str) -> Condition:
    """Return a condition that is understood, given as one or as text.

    Raises:
        InvalidArgument: It is not.
    """
    return parse_condition(condition) if isinstance(condition, str) else check(condition)


def project(identifier: str) -> str:
    """Return a project's id.

    Raises:
        InvalidArgument: It is none.
    """
    if not _PROJECT.fullmatch(identifier):
        msg = "A project's id is 1 to 63 lower-case letters, digits and hyphens, such as probe-2026."
        raise InvalidArgument(msg, field="project")
    return identifier


def print_condition(condition: Condition) -> str:
    """Print a condition; one that is not understood is printed as `unspecified`, which nobody reads back."""
    value = f"{condition.duration_s}s" if condition.duration_s else condition.name
    return f"{condition.modifier.value}={value}" if value else condition.modifier.value


def show_condition(condition: Condition) -> str:
    """Print a condition as people write it: whole days as days."""
    days, rest = divmod(condition.duration_s, 86_400)
    return f"{condition.modifier.value}={days}d" if days and not rest else print_condition(condition)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        InvalidArgument: It is not understood.
    """
    word, separator, value = text.partition("=")
    modifier = Modifier(word) if word in set(Modifier) else Modifier.UNSPECIFIED
    if modifier not in LASTING:
        condition = check(Condition(modifier, name=value))
    else:
        seconds = _SECONDS.fullmatch(value)
        condition = check(Condition(modifier, duration_s=int(seconds[1]) if seconds else 0))
    if bool(separator) is not bool(value):
        raise _wrong(modifier)
    return condition


def digest(conditions: Iterable[Condition], purposes: Iterable[str] = ()) -> str:
    """SHA-256, in hex, of the canonical JSON of an object of their texts: what a ledger entry says of them."""
    said = {"conditions": [print_condition(one) for one in conditions], "purposes": [str(purpose) for purpose in purposes]}
    return strict_json.digest(said)


def _wrong(modifier: Modifier) -> InvalidArgument:
    how = "=30d or =2592000s" if modifier in LASTING else "=NAME" if modifier in NAMED else " alone"
    return InvalidArgument(f"The condition {modifier.value} is written {modifier.value}{how}.", field="conditions")
