"""Reasons: given with a deed, committed to in its ledger entry, kept encrypted, shown where a record has them, and erasable."""

from __future__ import annotations

import itertools
import json

import pytest
from model_organisms import errors
from model_organisms_registry.inspection import inspect
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.sealed import SealedStore

from tests.support.stories import WHY, granted, published

NUMBERS = itertools.count()


def suspend(world, reason):
    world.admin.users.suspend(accused(world), reason=reason)


def reinstate(world, reason):
    name = accused(world)
    world.admin.users.suspend(name, reason="For a moment.")
    world.admin.users.reinstate(name, reason=reason)


def revoke(world, reason):
    version, _ = published(world)
    grant = world.person("ravi").access.revoke(granted(world, version), reason=reason)
    assert world.person("rosa").access.grant(grant.name).reason == reason


def withdraw(world, reason):
    version, _ = published(world)
    assert world.person("pia").organisms.withdraw(version.name, reason=reason).note == reason
    assert world.person("rosa").organisms.version(version.name).note == reason


def quarantine(world, reason):
    version, _ = published(world)
    assert world.person("ravi").organisms.quarantine(version.name, reason=reason).note == reason


def release(world, reason):
    version, _ = published(world)
    world.person("pia").organisms.quarantine(version.name, reason="For a moment.")
    world.person("ravi").organisms.release(version.name, reason=reason)


def raise_level(world, reason):
    version, _ = published(world)
    world.person("ravi").organisms.raise_level(version.name.split("/versions")[0], "CL2", reason=reason)


def request(world, reason):
    version, _ = published(world)
    made = world.person("rosa").access.request(version.name, "pull", purpose="replication", justification=reason)
    assert world.person("ravi").access.get(made.name).justification == reason


def amend(world, reason):
    version, _ = published(world, level="CL3")
    rosa = world.person("rosa")
    made = rosa.access.request(version.name, "sample", purpose="detection-research", justification=WHY)
    assert rosa.access.amend(made, justification=reason).justification == reason


def accused(world):
    return world.person(f"sam-{next(NUMBERS)}", "researcher").identity.user


DEEDS = {
    "identity.suspend": suspend,
    "identity.reinstate": reinstate,
    "access.revoke": revoke,
    "organisms.withdraw": withdraw,
    "organisms.quarantine": quarantine,
    "organisms.release": release,
    "organisms.level": raise_level,
    "access.request": request,
    "access.amend": amend,
}


def contents(world):
    storage = world.registry.storage
    return Contents(SealedStore(storage.blobs, storage.keys))


def where(world, commit):
    with world.registry.storage.database.read() as tx:
        return rows.content(tx, commit)


def spoken(payload, kind):
    return json.loads(payload)["justification"] if kind in {"access.request", "access.amend"} else payload.decode()


@pytest.mark.parametrize("kind", DEEDS)
def test_a_reason_is_committed_to_and_its_words_are_nowhere_in_the_open_but_in_the_catalog(world, kind):
    words = f"Because of {kind.replace('.', ' ')}, and for no other purpose whatever; número {next(NUMBERS)}."
    DEEDS[kind](world, words)
    (last, *_) = [entry for _, entry in reversed(list(world.person("aud").audit.entries())) if entry.type == kind]
    kept = where(world, last.commit)
    assert spoken(contents(world).read(kept), kind) == words
    in_the_open = [path for path in (world.folder / "blobs").rglob("*") if path.is_file() and words.encode() in path.read_bytes()]
    assert in_the_open == []
    assert kept.owner.split("/")[0] in {"users", "organisms"}


def test_what_was_said_of_somebody_can_be_erased_and_the_ledger_still_holds(world):
    name = accused(world)
    world.admin.users.suspend(name, reason="A rumour that turned out to be false.")
    entry = next(entry for _, entry in world.person("aud").audit.entries() if entry.subject == name and entry.commit)
    kept = where(world, entry.commit)
    assert contents(world).read(kept) == b"A rumour that turned out to be false."
    world.registry.storage.keys.destroy(kept.key_id)
    with pytest.raises(errors.NotFound, match="destroyed"):
        contents(world).read(kept)
    world.person("aud").audit.verify_ledger()
    assert inspect(world.registry.config).clean


def test_a_deed_that_is_refused_keeps_no_words(world):
    before = sorted((world.folder / "blobs" / "contents").rglob("*"))
    for attempt in (
        lambda: world.person("rosa").users.suspend("users/pia", reason="Envy."),
        lambda: world.person("rosa").access.revoke("grants/" + "0" * 26, reason="Spite."),
        lambda: world.admin.users.suspend("users/admin", reason="A slip."),
    ):
        with pytest.raises(errors.ModelOrganismsError):
            attempt()
    assert sorted((world.folder / "blobs" / "contents").rglob("*")) == before
