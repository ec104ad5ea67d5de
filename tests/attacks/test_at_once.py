"""Two who act on one account or one organism at one moment, so that what one of them looked at is no longer so when they write.

The first has written and not yet committed; the second, who began when nothing was changed, waits for them on PostgreSQL and for
its turn on SQLite. Then the first commits.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from model_organisms import errors
from model_organisms.client.client import login, rotate_keys
from model_organisms.records import Level, UserState, VersionState
from model_organisms_registry.founding import public_ticket
from model_organisms_registry.storage import schema
from model_organisms_registry.testing import World, running, settings
from sqlalchemy import text, update

from tests.support.providers import trusted
from tests.support.stories import published

if TYPE_CHECKING:
    from collections.abc import Callable

PEOPLE = (
    ("second", "admin", "ops"),
    ("pia", "publisher", "nursery"),
    ("ravi", "reviewer", "lab-r"),
    ("rena", "reviewer", "lab-n"),
)
_WAITERS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(request, identity_provider, tmp_path_factory):
    url, folder = "", tmp_path_factory.mktemp("at-once") / "data"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        url = server.url(server.create())
    with running(settings(folder, database=url, oidc=trusted(identity_provider)), people=PEOPLE) as running_world:
        yield running_world


def overtaken(world: World, table: str, name: str, values: dict[str, Any], late: Callable[[], Any]) -> Any:
    """Change a row, let another begin before that is committed, and say what came of the other; an error is a result."""
    database, changed = world.registry.storage.database, schema.metadata.tables[table]
    with ThreadPoolExecutor(1) as pool:
        with database.write() as tx:
            tx.execute(update(changed).where(changed.c.name == name).values(values))
            future = pool.submit(late)
            _begun(world, future)
        return future.exception(timeout=20) or future.result()


def _begun(world: World, future: Future[Any]) -> None:
    """Wait until the other waits, or is done; SQLite's waits for its turn, which nobody can see."""
    deadline = time.monotonic() + 4
    if world.registry.storage.database.dialect == "sqlite":
        deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline and not future.done():
        if world.registry.storage.database.dialect == "postgresql":
            with world.registry.storage.database.read() as tx:
                if tx.execute(_WAITERS).scalar_one():
                    return
        time.sleep(0.02)


def state(world: World, name: str) -> UserState:
    return world.admin.users.get(name).state


SUSPENDED = {"state": UserState.SUSPENDED.value}


def test_stopping_the_admin_who_is_stopping_you(world):
    second = world.person("second")
    late = overtaken(world, "users", "users/second", SUSPENDED, lambda: second.users.suspend("admin", reason="In my way."))
    assert isinstance(late, errors.Conflict)
    assert "last active admin" in str(late)
    assert (state(world, "admin"), state(world, "second")) == (UserState.ACTIVE, UserState.SUSPENDED)
    world.admin.users.reinstate("second", reason="Enough.")


def test_enrolling_a_service_anew_while_it_is_being_stopped(world, identity_provider, tmp_path):
    ticket = str(public_ticket(world.registry.config))
    name = "service-robot"
    login(ticket, tmp_path / "first.json", token=identity_provider.service_token()).close()
    token = identity_provider.service_token()
    late = overtaken(world, "users", f"users/{name}", SUSPENDED, lambda: login(ticket, tmp_path / "second.json", token=token))
    assert isinstance(late, errors.Suspended)
    assert state(world, name) is UserState.SUSPENDED


def test_exchanging_a_key_that_is_being_replaced(world):
    """A thief has the old key, its owner just used the ticket for a new one."""
    world.person("lost", "researcher").close()
    owners = b"o" * 32
    values = {"identity_key": owners, "key_id": sha256(owners).hexdigest()[:16]}
    late = overtaken(world, "users", "users/lost", values, lambda: rotate_keys(world.folder / "lost.json"))
    assert isinstance(late, errors.CertificateRefused)
    assert world.admin.users.get("lost").identity_key == owners


def test_enrolling_while_the_account_is_being_stopped(world, tmp_path):
    ticket = world.admin.users.invite("waits", organisation="example-lab", roles=["researcher"]).ticket
    late = overtaken(world, "users", "users/waits", SUSPENDED, lambda: login(ticket, tmp_path / "waits.json"))
    assert isinstance(late, errors.EnrolmentRefused)
    assert state(world, "waits") is UserState.SUSPENDED


def test_raising_a_level_a_little_while_it_is_raised_far(world):
    """Who only raises needs no second reviewer, and must not lower what another raised."""
    version, _ = published(world)
    name, ravi = version.name.partition("/versions/")[0], world.person("ravi")
    far = {"level": Level.CL4.value}
    late = overtaken(world, "organisms", name, far, lambda: ravi.organisms.raise_level(name, "CL2", reason="A little."))
    assert isinstance(late, errors.Denied)
    assert ravi.organisms.get(name).level is Level.CL4


def test_releasing_what_one_sets_aside_at_this_moment(world):
    """The quarantine that they looked at was another's."""
    version, _ = published(world)
    ravi = world.person("ravi")
    world.person("rena").organisms.quarantine(version.name, reason="Looks odd.")
    again = {"stopped_by": "users/ravi"}
    late = overtaken(world, "versions", version.name, again, lambda: ravi.organisms.release(version.name, reason="It is fine."))
    assert isinstance(late, errors.Denied)
    assert ravi.organisms.version(version.name).state is VersionState.QUARANTINED
