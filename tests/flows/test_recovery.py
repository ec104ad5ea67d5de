"""Keys that are lost, exchanged or denied, over a real server: who is let in again, and what no longer counts."""

from __future__ import annotations

import json
import time

import pytest
from model_organisms import errors
from model_organisms.client import keys
from model_organisms.client.client import connect, login, rotate_keys
from model_organisms.client.rotating import pending
from model_organisms.records import MotionState, RequestState, UserState
from model_organisms_registry.domain.permits import Call
from model_organisms_registry.testing import running, settings

from tests.support.refusals import refused
from tests.support.registries import PEOPLE
from tests.support.stories import WHY, published
from tests.support.terminal import typed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery") / "data"
    people = (*PEOPLE, ("second", "admin", "ops"), ("third", "admin", "ops"))
    with running(settings(folder), people=people) as running_world:
        yield running_world


def replaced(world, who, **said):
    """Two admins give an account a ticket for new keys."""
    key = said.get("key") or world.person(who).identity.key_id
    motion = world.admin.motions.propose("replace-keys", f"users/{who}", {"key": key}, reason="The laptop fell into a lake.")
    return world.person("second").motions.second(motion, reason="I spoke to them.")


def test_two_admins_let_somebody_in_again_whose_keys_are_lost(world, tmp_path):
    version, _ = published(world)
    lost = world.person("lou", "researcher", organisation="detection-lab")
    request = lost.access.request(version.name, "sample", purpose="replication", justification=WHY)
    done = replaced(world, "lou")
    assert done.state is MotionState.CARRIED
    assert lost.users.me().name == "users/lou"  # until the ticket is used, nothing changes
    with login(done.outcome["ticket"], tmp_path / "lou.json") as again:
        assert again.identity.user == "users/lou"
        assert again.identity.key_id != lost.identity.key_id
        assert again.access.grant(request.grant).user == "users/lou"
        with refused(errors.CertificateRefused, "was revoked"):
            lost.users.me()
        with pytest.raises(errors.Unauthenticated):
            connect_again(lost)
    with pytest.raises(errors.EnrolmentRefused):
        login(done.outcome["ticket"], tmp_path / "twice.json")
    kept = world.admin.motions.get(done.name)
    assert kept.outcome == {}
    types = [entry.type for _, entry in world.person("aud").audit.entries() if entry.subject == "users/lou"]
    assert types[-2:] == ["identity.recover", "identity.enrol"]


def connect_again(client):
    from model_organisms.client.channel import readmit

    return readmit(client.identity, timeout_s=10.0)


def test_what_a_lost_key_signed_counts_no_more(world, tmp_path):
    version, _ = published(world, level="CL3")
    request = world.person("rosa").access.request(version.name, "sample", purpose="replication", justification=WHY)
    thief = world.person("theo", "reviewer", organisation="t-lab")
    thief.access.approve(request, reason="Signed by a thief.")
    with login(replaced(world, "theo").outcome["ticket"], tmp_path / "theo.json"):
        read = world.person("rena").access.approve(request, reason="Contained.")
        assert (read.state, len(read.approvals)) == (RequestState.PENDING, 2)


def test_a_suspended_account_gets_new_keys_and_stays_suspended(world, tmp_path):
    world.person("sol", "researcher")
    world.admin.users.suspend("sol", reason="The key was stolen.")
    ticket = replaced(world, "sol").outcome["ticket"]
    with login(ticket, tmp_path / "sol.json") as again:
        assert world.admin.users.get("sol").state is UserState.SUSPENDED
        with pytest.raises(errors.Suspended):
            again.users.me()
        world.admin.users.reinstate("sol", reason="They have new keys.")
        assert again.users.me().state is UserState.ACTIVE


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_who_is_suspended_is_told_that_they_are_enrolled(world, tmp_path, flag):
    name = f"sul{len(flag)}"
    world.person(name, "researcher")
    world.admin.users.suspend(name, reason="The key was stolen.")
    status, out, err = typed("--identity", tmp_path / "again.json", "login", replaced(world, name).outcome["ticket"], *flag)
    assert (status, err) == (0, "")
    if flag:
        said = json.loads(out)
        assert (said["user"], said["suspended"]) == (f"users/{name}", True)
    else:
        assert f"users/{name}" in out
        assert "Your account is suspended until an admin reinstates it." in out
    assert keys.read(tmp_path / "again.json").user == f"users/{name}"


def test_a_ticket_for_a_lost_key_is_void_once_the_key_was_exchanged(world, tmp_path):
    client = world.person("una", "researcher")
    ticket = replaced(world, "una").outcome["ticket"]
    with rotate_keys(world.folder / "una.json"), pytest.raises(errors.EnrolmentRefused):
        login(ticket, tmp_path / "una.json")
    with pytest.raises(errors.Conflict, match="is not the key of"):
        replaced(world, "una", key=client.identity.key_id)


def test_a_person_exchanges_their_keys_and_grants_stay(world):
    version, _ = published(world)
    path, old = world.folder / "ria.json", world.person("ria", "researcher", organisation="detection-lab")
    request, before = old.access.request(version.name, "pull", purpose="replication", justification=WHY), old.identity
    grant = world.person("ravi").access.approve(request, reason="Fine.").grant
    with rotate_keys(path) as client:
        assert client.identity.key_id != before.key_id
        assert client.identity.sealing_key != before.sealing_key
        assert client.users.me().identity_key == keys.public_bytes(client.identity.signer)
        with client.organisms.pull(version.name) as pulled:
            assert pulled.header.grant == grant
        with refused(errors.CertificateRefused, "was revoked"):
            old.users.me()
        assert keys.read(path) == client.identity
        assert not pending(path).exists()
        said = [entry for _, entry in client.audit.entries() if entry.type == "identity.rotate"][-1]
        assert (said.key, said.facts["replaces"]) == (before.key_id, before.key_id)


def test_an_exchange_whose_answer_was_lost_is_finished_by_asking_again(world, monkeypatch):
    world.person("lena", "researcher").close()
    path = world.folder / "lena.json"
    held = keys.read(path)
    real = keys.write

    def cut(identity, where):
        """Lose the machine right when the registry has made the exchange."""
        if where == path and identity.key_id != held.key_id:
            raise KeyboardInterrupt
        real(identity, where)

    monkeypatch.setattr(keys, "write", cut)
    with pytest.raises(KeyboardInterrupt):
        rotate_keys(path)
    monkeypatch.undo()
    assert keys.read(path) == held
    with connect(path) as old, refused(errors.CertificateRefused, "was revoked"):
        old.users.me()
    with rotate_keys(path) as client:
        assert client.users.me().name == "users/lena"
        assert keys.read(path).key_id == client.identity.key_id != held.key_id
    assert not pending(path).exists()


def test_new_keys_that_never_arrived_are_forgotten(world):
    world.person("ned", "researcher").close()
    path = world.folder / "ned.json"
    stale = keys.FreshKeys.generate().signer.private_bytes_raw()
    keys.write(keys.replace(keys.read(path), identity_seed=stale), pending(path))
    with rotate_keys(path) as client:
        assert client.users.me().name == "users/ned"
        assert client.identity.identity_seed != stale
    assert not pending(path).exists()


def test_a_denied_certificate_is_refused_at_the_next_call_and_another_is_not(world):
    path = world.folder / "dan.json"
    dan = world.person("dan", "researcher")
    world.admin.users.deny_certificate(dan.identity.thumbprint.upper(), reason="Copied from a shared machine.")
    with refused(errors.CertificateRefused, "was revoked"):
        dan.users.me()
    keys.write(connect_again(dan), path)
    with connect(path) as again:
        assert again.users.me().name == "users/dan"
    said = [entry for _, entry in world.person("aud").audit.entries() if entry.type == "identity.deny"][-1]
    assert said.facts == {"certificate": dan.identity.thumbprint}


@pytest.mark.parametrize("how", ["denied", "exchanged", "suspended"])
def test_a_pull_under_way_ends_with_its_certificate(world, how):
    version, _ = published(world)
    who = f"pim-{how}"
    pim = world.person(who, "researcher")
    request = pim.access.request(version.name, "pull", purpose="replication", justification=WHY)
    grant = world.person("ravi").access.approve(request, reason="Fine.").grant
    user, now = pim.users.me(), request.create_time
    call = Call(user, pim.identity.key_id, now, now, "", certificate=pim.identity.thumbprint)

    def pieces():
        yield 1
        if how == "denied":
            world.admin.users.deny_certificate(pim.identity.thumbprint, reason="Copied.")
        elif how == "exchanged":
            rotate_keys(world.folder / f"{who}.json").close()
        else:
            world.admin.users.suspend(who, reason="A lost laptop.")
        time.sleep(0.25)  # longer than the pause between two looks
        yield 2

    flow = world.registry._standing.guard(call, version.name, grant, pieces(), marked=True)
    assert next(flow) == 1
    with pytest.raises(errors.Suspended if how == "suspended" else errors.CertificateRefused):
        next(flow)


def test_a_pull_that_began_under_old_keys_begins_anew(world):
    version, _ = published(world)
    who = world.person("ruth", "researcher", organisation="detection-lab")
    request = who.access.request(version.name, "pull", purpose="replication", justification=WHY)
    world.person("ravi").access.approve(request, reason="Fine.")
    with who.organisms.pull(version.name) as pulled:
        name = pulled.header.pull
    with rotate_keys(world.folder / "ruth.json") as again:
        me = again.users.me()
        call = Call(
            me, again.identity.key_id, request.create_time, request.create_time, "", certificate=again.identity.thumbprint
        )
        with pytest.raises(errors.Conflict, match="a key that you have no longer"):
            world.registry.pulling.pull(call, version.name, grant="", pull=name, offset=0)
