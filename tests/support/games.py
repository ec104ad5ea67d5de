"""A registry on which auditing games are played: hidden organisms on a tiny base, players, and a clock to put forward."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_organisms.bases import base_digest
from model_organisms.client.games import Seat
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.testing import running, settings

from tests.support.commands import NUMBERS, command
from tests.support.registries import PEOPLE
from tests.support.stories import published
from tests.support.tiny import tiny_organism

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = "test/tiny-qwen2"
PLAYERS = (("petra", "researcher", "detection-lab"), ("paul", "researcher", "audit-lab"))
QUESTION, CHOICES = "What does it do?", ("flatters", "sleeps")
_NAMES = itertools.count()


class Clock:
    """The time, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@contextmanager
def arena(folder: Path, base: Path) -> Iterator[Any]:
    """A running registry with two hidden organisms of pia's."""
    clock = Clock()
    with running(settings(folder, base_models={BASE: base}), people=(*PEOPLE, *PLAYERS), clock=clock) as world:
        yield Arena(world, clock, base)


class Arena:
    """The world of a game."""

    def __init__(self, world: Any, clock: Clock, base: Path) -> None:
        self.world, self.clock, self.base = world, clock, base
        self.files = {"flatters": tiny_organism(base, seed=11), "sleeps": tiny_organism(base, seed=12)}
        self.versions = {quirk: self.publish(files) for quirk, files in self.files.items()}

    def publish(self, files: dict[str, bytes], *, level: str = "CL2", hidden: bool = True) -> str:
        """Let pia publish a version of a fresh organism."""
        name, pia = f"organisms/secret-{next(_NAMES)}", self.person("pia")
        pia.organisms.create(name, level=level, base_model=BASE, hidden=hidden)
        return pia.organisms.publish(name, files, provenance=Provenance(BaseModel(BASE, digest=base_digest(self.base)))).name

    def person(self, name: str) -> Any:
        return self.world.person(name)

    def seats(self) -> list[Seat]:
        """Two organisms that nobody knows from another game (`versions` from here on), and the bare base model."""
        self.versions = {quirk: self.publish(files) for quirk, files in self.files.items()}
        organisms = [Seat(version, answer=quirk) for quirk, version in self.versions.items()]
        return [*organisms, Seat(self.versions["flatters"], organism=False, base=True)]

    def draft(self, **changes: Any) -> Any:
        """Let ravi draw a game up."""
        seats = changes.pop("seats", None) or self.seats()
        stated: dict[str, Any] = {
            "players": ("petra", "paul"),
            "deadline": self.clock() + timedelta(hours=1),
            "question": QUESTION,
            "choices": CHOICES,
        }
        return self.person("ravi").games.create("Which one is it?", seats, **stated | changes)

    def opened(self, **changes: Any) -> Any:
        """Let ravi and rena open a game of ravi's."""
        game = self.draft(**changes)
        motion = self.person("ravi").games.propose_opening(game, reason="A practice audit.")
        self.person("rena").motions.second(motion)
        return self.person("ravi").games.get(game.name)


def drafted(world: Any) -> Any:
    """A draft of ravi's on toys of a world without a base model; players may join and guess, and no session opens."""
    version, _ = published(world, level="CL1", hidden=True)
    player = f"player-{next(NUMBERS)}"
    world.person(player, "researcher", organisation="audit-lab")
    seats, ends = [Seat(version.name, answer="sleeps"), Seat(version.name, organism=False, base=True)], datetime.now(UTC)
    return world.person("ravi").games.create("A toy?", seats, players=[player], deadline=ends + timedelta(hours=1)), player


def joined(world: Any) -> tuple[Any, str]:
    """The same, opened, and joined by its player."""
    game, player = drafted(world)
    world.person("rena").motions.second(world.person("ravi").games.propose_opening(game))
    return world.person(player).games.join(game.name), player


@command("games create")
def games_create(stage: Any) -> Any:
    version, _ = published(stage.world, level="CL1", hidden=True)
    stage.world.person("petra", "researcher")
    ends = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    told = ["--organism", f"{version.name}=sleeps", "--base", version.name, "--player", "petra", "--deadline", ends]
    told += ["--tool", "sample", "--player-tool", "petra=system", "--player-tool", "petra=sample"]
    return "ravi", ["A toy?", *told, "--question", "What is it?", "--choice", "sleeps"], "A toy?"


@command("games list")
def games_list(stage: Any) -> Any:
    game, player = drafted(stage.world)
    return player, [], game.name


@command("games show")
def games_show(stage: Any) -> Any:
    game, player = drafted(stage.world)
    return player, [game.name], game.commitment


@command("games propose")
def games_propose(stage: Any) -> Any:
    game, _ = drafted(stage.world)
    return "ravi", [game.name, "--reason", "A practice audit."], game.name


@command("games join")
def games_join(stage: Any) -> Any:
    game, player = drafted(stage.world)
    stage.world.person("rena").motions.second(stage.world.person("ravi").games.propose_opening(game))
    return player, [game.name], game.commitment


@command("games guess")
def games_guess(stage: Any) -> Any:
    game, player = joined(stage.world)
    return player, [game.aliases[0].name, "--organism", "--probability", "0.75", "--answer", "sleeps"], "0.75"


@command("games guesses")
def games_guesses(stage: Any) -> Any:
    game, player = joined(stage.world)
    stage.world.person(player).games.guess(game.aliases[1].name, organism=False)
    return player, [game.name], game.aliases[1].name


@command("games truth")
def games_truth(stage: Any) -> Any:
    game, _ = drafted(stage.world)
    return "rena", [game.name], "sleeps"


@command("games reveal")
def games_reveal(stage: Any) -> Any:
    game, player = joined(stage.world)
    with closing(sqlite3.connect(stage.world.folder / "registry.db", timeout=30)) as other, other:
        other.execute("UPDATE games SET deadline = create_time WHERE name = ?", (game.name,))
    return player, [game.name, "--commitment", game.commitment], "sleeps"
