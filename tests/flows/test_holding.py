"""Who holds what, what they are told, and what they attest at the end: over the wire, and in the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.formats import dsse, statements
from model_organisms.formats.destruction import Destruction, print_destruction
from model_organisms.records import GrantState, HoldingState, NoticeKind
from model_organisms.v1 import recall_pb2

from tests.support.stories import WHY, granted, published


def pulled(world):
    """A version of which rosa holds a copy, and the grant."""
    version, _ = published(world)
    grant = granted(world, version)
    with world.person("rosa").organisms.pull(version.name) as copy:
        assert copy.header.grant == grant
    return version, grant


def test_holders_are_told_to_those_who_answer_for_a_version_and_to_nobody_else(world):
    version, grant = pulled(world)
    for client in (world.person("pia"), world.person("ravi"), world.person("aud"), world.admin):
        (held,) = client.organisms.holders(version.name)
        assert (held.user, held.organisation, held.grant, held.version.digest) == (
            "users/rosa",
            "organisations/detection-lab",
            grant,
            version.digest,
        )
        assert (held.state, held.grant_state, held.due_time) == (HoldingState.HELD, GrantState.ACTIVE, None)
        assert list(client.organisms.holders(version.name, outstanding=True)) == []
    with pytest.raises(errors.Denied, match="owner, reviewers"):
        list(world.person("rosa").organisms.holders(version.name))
    intents = [entry for _, entry in world.person("aud").audit.entries() if entry.type == "organisms.pull.intent"]
    assert [entry.grant for entry in intents if entry.subject == version.name] == [grant]


def test_a_grant_that_is_over_is_owed_an_attestation_and_gets_it(world):
    version, grant = pulled(world)
    rosa, pia = world.person("rosa"), world.person("pia")
    world.person("ravi").access.revoke(grant, reason="The study is over.")
    (due,) = pia.organisms.holders(version.name, outstanding=True)
    assert (due.state, due.grant_state) == (HoldingState.DUE, GrantState.REVOKED)
    assert due in list(rosa.access.outstanding())
    assert due in list(world.person("ravi").access.outstanding(user="users/rosa"))
    assert due not in list(pia.access.outstanding())
    (after,) = rosa.access.attest_destroyed(grant, how="Deleted, and the disk's free space overwritten.")
    assert after.state is HoldingState.DESTROYED
    assert list(pia.organisms.holders(version.name)) == [after]
    assert due.pull not in {held.pull for held in rosa.access.outstanding()}
    told = (entry for _, entry in world.person("aud").audit.entries() if entry.type == "access.destroyed")
    entry = next(entry for entry in told if entry.subject == grant)
    assert (entry.actor, entry.facts["envelope"], entry.facts["pulls"]) == ("users/rosa", after.destruction, "1")
    with pytest.raises(errors.Conflict, match="Nothing is left"):
        rosa.access.attest_destroyed(grant, how="Again.")


def test_a_recall_is_owed_though_the_grant_stands(world):
    version, grant = pulled(world)
    world.person("ravi").organisms.quarantine(version.name, reason="Looking into it.")
    assert list(world.person("pia").organisms.holders(version.name, outstanding=True)) == []
    world.person("pia").organisms.withdraw(version.name, reason="It is worse than it says.")
    (due,) = world.person("pia").organisms.holders(version.name, outstanding=True)
    assert (due.state, due.grant_state) == (HoldingState.DUE, GrantState.ACTIVE)
    world.person("rosa").access.attest_destroyed(grant, how="Deleted.")


def test_who_is_late_gets_no_new_grant_to_pull(world, monkeypatch):
    version, grant = pulled(world)
    other, _ = published(world)
    rosa, ravi = world.person("rosa"), world.person("ravi")
    for owed in {held.grant for held in rosa.access.outstanding()}:
        rosa.access.attest_destroyed(owed, how="Tidied up after another test.")
    waiting = rosa.access.request(other.name, "pull", purpose="replication", justification=WHY)
    ravi.access.revoke(grant, reason="The study is over.")
    monkeypatch.setattr(world.registry.holdings, "_grace", timedelta())
    for attempt in (
        lambda: rosa.access.request(version.name, "pull", purpose="replication", justification=WHY),
        lambda: ravi.access.approve(waiting),
    ):
        with pytest.raises(errors.DestructionOverdue, match=grant):
            attempt()
    (late,) = (held for held in ravi.access.outstanding() if held.grant == grant)
    assert late.state is HoldingState.OVERDUE
    assert rosa.access.request(other.name, "sample", purpose="replication", justification=WHY).grant
    rosa.access.attest_destroyed(grant, how="Deleted.")
    assert ravi.access.approve(waiting).grant


def test_nobody_attests_for_another_and_no_statement_counts_twice(world):
    version, grant = pulled(world)
    rosa, ravi = world.person("rosa"), world.person("ravi")
    (held,) = rosa.access.holdings(grant=grant)
    stated = Destruction(grant, held.version, (held.pull,), "Deleted.", held.pull_time.replace(microsecond=0), "0" * 32)

    def send(client, signer, stated=stated, to=grant):
        envelope = dsse.sign(print_destruction(stated), statements.PAYLOAD_TYPE, signer.identity.signer)
        client._channel.call(
            client.access._recall.AttestDestruction, recall_pb2.AttestDestructionRequest(grant=to, envelope=envelope)
        )

    for client, signer, error in (
        (ravi, ravi, errors.Denied),
        (world.person("rita", "researcher"), world.person("rita"), errors.NotFound),
        (rosa, ravi, errors.SignatureInvalid),
    ):
        with pytest.raises(error):
            send(client, signer)
    with pytest.raises(errors.NotFound):
        send(rosa, rosa, to="grants/" + "0" * 26)
    with pytest.raises(errors.NotFound):
        send(rosa, rosa, stated=replace(stated, grant="grants/" + "0" * 26))
    with pytest.raises(errors.InvalidProvenance, match="calls of their own"):
        rosa.organisms.attest(version.name, print_destruction(stated))
    send(rosa, rosa)
    with pytest.raises(errors.Conflict):
        send(rosa, rosa)


def test_holders_and_grantees_are_told_and_the_ledger_knows_that_they_know(world):
    version, _ = pulled(world)
    organism = version.name.split("/versions/")[0]
    rosa, ravi = world.person("rosa"), world.person("ravi")
    before = next(rosa.access.notices(), None)
    if before:
        rosa.access.read_notices(before.name)
    ravi.organisms.quarantine(version.name, reason="A second trigger was seen.")
    world.person("rena").organisms.release(version.name, reason="It was the first one.")
    ravi.organisms.raise_level(organism, "CL2", reason="More coherent than thought.")
    world.person("pia").organisms.withdraw(version.name, reason="It is worse than it says.")
    told = list(rosa.access.notices(unread=True))
    assert [(one.kind, one.subject, one.text) for one in told] == [
        (NoticeKind.WITHDRAWN, version.name, "It is worse than it says."),
        (NoticeKind.RAISED, organism, "Raised from CL1 to CL2: More coherent than thought."),
        (NoticeKind.RELEASED, version.name, "It was the first one."),
        (NoticeKind.QUARANTINED, version.name, "A second trigger was seen."),
    ]
    for stranger in ("ravi", "pia", "aud"):
        assert not [one for one in world.person(stranger).access.notices() if one.subject == version.name]
    assert rosa.access.read_notices(told[1].name) == 3
    assert [one.kind for one in rosa.access.notices(unread=True)] == [NoticeKind.WITHDRAWN]
    assert rosa.access.read_notices(told[0].name) == 1
    entries = [entry for _, entry in world.person("aud").audit.entries()]
    assert [entry.facts["kind"] for entry in entries if entry.type == "access.notice" and entry.subject == version.name] == [
        "quarantined",
        "released",
        "withdrawn",
    ]
    read = [entry.facts for entry in entries if entry.type == "access.notice.read" and entry.actor == "users/rosa"]
    assert read[-1] == {"newest": told[0].name, "count": "1"}
