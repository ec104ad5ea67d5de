"""A registry to test against: real server, real gate, real ledger, on loopback, with people who enrol as anybody does.

For the tests of this project, and for programs that use the SDK and want something to talk to. Nothing here is a shortcut: the
people get tickets, make keys, and hold certificates.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from model_organisms.client.client import Client, login
from model_organisms.records import Role

from model_organisms_registry.config import Cells, Config, Sandbox
from model_organisms_registry.domain.identity import APPOINTED
from model_organisms_registry.founding import found, free_ports
from model_organisms_registry.server import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(slots=True)
class World:
    """A running registry and the people who know it.

    Attributes:
        registry: The server.
        folder: Where its data and the people's identities lie.
        admin: The first admin.
        people: Everybody invited since.
        admins: The admins among them.
    """

    registry: Registry
    folder: Path
    admin: Client
    people: dict[str, Client] = field(default_factory=dict)
    admins: list[Client] = field(default_factory=list)

    def person(self, name: str, *roles: str, organisation: str = "example-lab") -> Client:
        """Invite somebody and enrol them; the same name gives the same client again."""
        if name not in self.people:
            ticket = self._ticket(name, roles, organisation)
            self.people[name] = client = login(ticket, self.folder / f"{name}.json")
            self.admins += [client] if Role.ADMIN in roles else []
        return self.people[name]

    def _ticket(self, name: str, roles: Iterable[str], organisation: str) -> str:
        """Have somebody invited: by the first admin, or where it takes two, by the first two."""
        if not self.admins or APPOINTED.isdisjoint(roles):
            return self.admin.users.invite(name, organisation=organisation, roles=roles).ticket
        facts = {"display_name": name, "organisation": f"organisations/{organisation}", "roles": ",".join(sorted(roles))}
        motion = self.admin.motions.propose("appoint", f"users/{name}", facts)
        return self.admins[0].motions.second(motion).outcome["ticket"]

    def close(self) -> None:
        """Hang everybody up and stop."""
        for client in (self.admin, *self.people.values()):
            client.close()
        self.registry.stop(grace_s=1.0)


def settings(folder: Path, *, base_models: Mapping[str, Path] | None = None, **changes: object) -> Config:
    """Settings of a registry on free loopback ports, which says no turn again: what is in its ledger is what a test did.

    Args:
        folder: Its data folder; need not exist.
        base_models: Hub id of each base model it may run, to its folder.
        changes: Further fields of `Config`.
    """
    cells = Cells(base_models={name: str(path) for name, path in (base_models or {}).items()})
    config = free_ports(Config(folder, origin="registry.test", cells=cells, sandbox=Sandbox(rerun_share=0)))
    return replace(config, **changes)  # type: ignore[arg-type] # fields are checked by the constructor


@contextmanager
def running(
    config: Config, *, people: Iterable[tuple[str, str, str]] = (), clock: Callable[[], datetime] | None = None
) -> Iterator[World]:
    """Found and run a registry while the block runs.

    Args:
        config: Its settings, as `settings` makes them.
        people: Name, role and organisation of those to enrol at once.
        clock: The registry's time, where it is to be another than this machine's.

    Yields:
        The world.
    """
    ticket = found(config, now=datetime.now(UTC))
    registry = Registry(config, clock=clock)
    registry.start()
    world = World(registry, config.folder, login(str(ticket), config.folder / "admin.json"))
    try:
        for name, role, organisation in people:
            world.person(name, role, organisation=organisation)
        yield world
    finally:
        world.close()
