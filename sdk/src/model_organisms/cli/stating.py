"""What a command line states of a requester's work, and conditions as people type them; what they mean, the registry says."""

from __future__ import annotations

import re
from datetime import UTC
from functools import wraps
from typing import TYPE_CHECKING

import click

from model_organisms.errors import InvalidArgument
from model_organisms.formats.conditions import parse_condition
from model_organisms.records import Modifier, Stated

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Condition, Match

_DAYS = re.compile(r"(?P<what>[a-z-]+)=(?P<days>[1-9][0-9]{0,3})d", re.ASCII)
_DAY_S = 86_400


def options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which a requester states what they do and accept; the command takes `stated`, None for nothing."""

    @wraps(command)
    def stating(
        *given: object, project: str, accept: tuple[str, ...], decline: tuple[str, ...], until: datetime | None, **rest: object
    ) -> None:
        stated = Stated(
            project=project,
            accepts=tuple(condition(text, hint="--accept") for text in accept),
            declines=tuple(Modifier(word) for word in decline),
            until=until.replace(tzinfo=UTC) if until else None,
        )
        command(*given, stated=None if stated == Stated() else stated, **rest)

    for option in (
        click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="When what you state ends: the project, the contract."),
        click.option(
            "--decline", multiple=True, type=_promises(), help="A condition you will not keep to; no-finetune: you will."
        ),
        click.option("--accept", multiple=True, metavar="CONDITION", help="A condition you will keep to; publish-delay=90d."),
        click.option("--project", default="", help="Id of the project it is for."),
    ):
        stating = option(stating)
    return stating


def condition(text: str, *, hint: str) -> Condition:
    """Read a condition; a duration may be given in days."""
    days, word = _DAYS.fullmatch(text), text.partition("=")[0]
    if word not in (known := [modifier.value for modifier in Modifier if modifier is not Modifier.UNSPECIFIED]):
        raise click.BadParameter(f"'{word}' is no condition; there are {', '.join(known)}.", param_hint=hint)
    try:
        return parse_condition(f"{days['what']}={int(days['days']) * _DAY_S}s" if days else text)
    except InvalidArgument as error:
        raise click.BadParameter(error.message, param_hint=hint) from error


def fits(match: Match) -> list[tuple[str, str]]:
    """How a request fits, as names and values, one a line."""
    rows = [(f"{reason.about} of {reason.organism}", f"{reason.outcome}: {reason.text}") for reason in match.reasons]
    return [("Fits", str(match.outcome)), *rows]


def _promises() -> click.Choice[str]:
    checked = {Modifier.UNSPECIFIED, Modifier.TIME_LIMIT, Modifier.PROJECT, Modifier.INSTITUTION}
    return click.Choice([modifier.value for modifier in Modifier if modifier not in checked])
