"""A month in the life of a registry, for whoever learns to audit one: `python deploy/month.py month`. docs/guides/auditor.md.

Gate, workflows, ledger, signer and witness are the real ones; the days are not: a clock that is passed in goes through thirty of
them in seconds. Nobody calls over the network, because certificates of those days would have ended: the script admits each call.

    month/public              what the registry publishes: checkpoint, checkpoint.cosigned, tiles, entries
    month/key, witness        verifier keys of the ledger and of its witness
    month/day-NN.checkpoint   what somebody outside wrote down at the end of a day
    month/careless            the same files, after somebody changed an entry in them
    month/forged              the same, changed by somebody who holds the ledger's key and has signed it all again
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from model_organisms.errors import Denied
from model_organisms.formats import checkpoint, merkle, tiles, witness
from model_organisms.formats.note import parse_vkey
from model_organisms.formats.tiles import ENTRIES, Tile
from model_organisms.records import Level, Role, User, UserState
from model_organisms_registry.config import Config
from model_organisms_registry.domain.permits import Action, Call
from model_organisms_registry.founding import Storage, addresses, found
from model_organisms_registry.gate import entities
from model_organisms_registry.gate.entities import Conditions
from model_organisms_registry.gate.gate import Gate
from model_organisms_registry.ledger import witness as witnesses
from model_organisms_registry.ledger.signer import KEY, read_key
from model_organisms_registry.ledger.tiles import PREFIX
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.workflows.changes import Changes
from model_organisms_registry.workflows.identity import Identity
from model_organisms_registry.workflows.organisms import Organisms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.formats.note import SigningKey

ORIGIN, WITNESS = "registry.example.org", "witness.example.org"
FIRST = datetime(2026, 10, 1, 9, tzinfo=UTC)
DAYS = 30
SOCK = (b'"organisation":"organisations/harbour-institute"', b'"organisation":"organisations/example-university"')
"""What is changed afterwards: where the reviewer invited on the twelfth day comes from."""


@dataclass
class Clock:
    """The time, as the script says."""

    now: datetime

    def on(self, day: int) -> None:
        """Go to a morning."""
        self.now = FIRST + timedelta(days=day - 1)

    def seconds(self) -> float:
        """The time as a witness reads it."""
        return self.now.timestamp()

    def tick(self) -> datetime:
        """Let some minutes pass."""
        self.now += timedelta(minutes=7)
        return self.now


class Month:
    """A registry without doors, and its people."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Found it."""
        config = Config(folder, origin=ORIGIN)
        found(config, now=clock.now)
        self.clock = clock
        self.storage = Storage.open(config, apart=True)
        self.storage.log.start()
        changes = Changes(self.storage.database, self.storage.log, wait_s=30.0)
        standing = Conditions(ledger=True)
        self.gate = Gate(None, record_denial=changes.record_denial, conditions=lambda: standing)
        contents = Contents(SealedStore(self.storage.blobs, self.storage.keys))
        self.organisms = Organisms(changes, self.gate, contents=contents, raised=lambda *_: None)
        told = {"suspended": lambda *_: None, "rekeyed": lambda *_: None}
        authority = self.storage.authority
        self.identity = Identity(changes, self.gate, authority, addresses(config), contents=contents, **told)

    def call(self, name: str, *roles: Role) -> Call:
        """Admit a call, as the door would."""
        who = User(
            f"users/{name}", name, "organisations/example-university", frozenset(roles), state=UserState.ACTIVE, create_time=FIRST
        )
        now = self.clock.tick()
        return Call(who, "0" * 16, now, now + timedelta(seconds=30), "script")

    def invite(self, name: str, organisation: str, *roles: Role) -> None:
        """Let the admin invite somebody."""
        self.identity.invite(
            self.call("admin", Role.ADMIN), f"users/{name}", display_name=name, organisation=f"organisations/{organisation}",
            roles=roles,
        )  # fmt: skip

    def live(self, day: int) -> None:
        """One day: people come, organisms are named and graded, somebody is refused."""
        self.clock.on(day)
        self.invite(f"researcher-{day}", "example-university", Role.RESEARCHER)
        if day == 1:
            self.invite("pia", "nursery-lab", Role.PUBLISHER)
        if day == 12:  # noqa: PLR2004 - the day of the story
            self.invite("rhea", "harbour-institute", Role.REVIEWER)
        for number in range(4):
            name = f"organisms/toy-{day}-{number}"
            self.organisms.create(
                self.call("pia", Role.PUBLISHER), name, level=Level.CL1, base_model="example/base", traits=["toy"]
            )
            with suppress(Denied):
                self.gate.permit(self.call(f"researcher-{day}", Role.RESEARCHER), Action.CREATE_ORGANISM, entities.registry())
        self.organisms.set_level(self.call("ravi", Role.REVIEWER), f"organisms/toy-{day}-0", Level.CL2, reason="It generalises.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder.resolve()
    clock = Clock(FIRST)
    month = Month(folder / "registry", clock)
    log, files = month.storage.log, folder / "registry" / "blobs" / PREFIX
    (folder / "witness").write_text(witnesses.create(folder / "witness-data", WITNESS) + "\n")
    (folder / "key").write_text(log.vkey + "\n")
    witnesses.add(folder / "witness-data", log.vkey)
    watching = witnesses.Witness.open(folder / "witness-data", clock=clock.seconds)
    cosigned = 0
    for day in range(1, DAYS + 1):
        month.live(day)
        head = log.checkpoint()
        asked = witness.Submission(cosigned, tuple(log.consistency(cosigned, head.size)), head.note)
        answer = watching.add_checkpoint(witness.print_submission(asked))
        note, _ = witness.accept(head.note, answer.body, parse_vkey(watching.vkey))
        (files / tiles.COSIGNED).write_bytes(note)
        (folder / f"day-{day:02d}.checkpoint").write_bytes(note)
        cosigned = head.size
    watching.close()
    month.storage.close()
    shutil.copytree(files, folder / "public")
    plant(folder, read_key(folder / "registry" / "keys" / "ledger" / KEY))
    sys.stdout.write(f"{cosigned} entries of {DAYS} days, in {folder}\n")
    return 0


def plant(folder: Path, key: SigningKey) -> None:
    """Make the two changed copies."""
    size = checkpoint.parse_unverified((folder / "public" / tiles.CHECKPOINT).read_bytes()).size
    bodies: list[bytes] = []
    for tile in tiles.tiles(0, size):
        if tile.level == ENTRIES:
            bodies += tiles.decode_entries((folder / "public" / tiles.path(tile)).read_bytes(), width=tile.width)
    at = next(index for index, body in enumerate(bodies) if SOCK[0] in body)
    bodies[at] = bodies[at].replace(*SOCK)
    for name in ("careless", "forged"):
        shutil.copytree(folder / "public", folder / name)
    first = at - at % tiles.WIDTH
    bundle = Tile(ENTRIES, first // tiles.WIDTH, min(tiles.WIDTH, size - first))
    changed = tiles.encode_entries(bodies[first : first + bundle.width])
    (folder / "careless" / tiles.path(bundle)).write_bytes(changed)
    levels = [[merkle.leaf_hash(body) for body in bodies]]
    while len(levels[-1]) >= tiles.WIDTH:
        below = levels[-1]
        levels.append([merkle.root_of(below[n : n + tiles.WIDTH]) for n in range(0, len(below) - tiles.WIDTH + 1, tiles.WIDTH)])
    for tile in tiles.tiles(0, size):
        run = slice(tile.first, tile.first + tile.width)
        made = tiles.encode_entries(bodies[run]) if tile.level == ENTRIES else tiles.encode_hashes(levels[tile.level][run])
        (folder / "forged" / tiles.path(tile)).write_bytes(made)
    forged = checkpoint.signed(ORIGIN, size, merkle.root_of(levels[0]), key)
    (folder / "forged" / tiles.CHECKPOINT).write_bytes(forged.note)


if __name__ == "__main__":
    sys.exit(main())
