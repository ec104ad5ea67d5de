"""Acts of two people over a real server: proposed by one, seconded by another, carried out once."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_organisms import errors
from model_organisms.formats import dsse, motions, statements
from model_organisms.formats.enrolment import Ticket
from model_organisms.records import Level, MotionState

from tests.support.stories import published
from tests.support.terminal import typed

DOWN = {"from": "CL3", "to": "CL2"}


def toy(world, level="CL3"):
    return published(world, level=level)[0].name.split("/versions")[0]


def test_two_reviewers_of_two_houses_lower_a_level(world):
    name, (ravi, rena) = toy(world), (world.person(who) for who in ("ravi", "rena"))
    motion = ravi.motions.propose("lower-level", name, DOWN, reason="It was graded for a sibling.")
    assert (motion.state, motion.needed, len(motion.signatures)) == (MotionState.OPEN, 2, 1)
    assert ravi.organisms.get(name).level is Level.CL3
    done = rena.motions.second(motion, reason="So it was.")
    assert (done.state, done.outcome) == (MotionState.CARRIED, {"level": "CL2"})
    assert rena.organisms.get(name).level is Level.CL2
    assert [item.level for item in rena.organisms.versions(name)] == [Level.CL2]
    kept = ravi.motions.get(motion.name)
    assert (kept.state, kept.outcome) == (MotionState.CARRIED, {})
    for given, signer in zip(kept.signatures, (ravi, rena), strict=True):
        payload = dsse.verify(given.envelope, signer.users.me().identity_key, payload_type=statements.PAYLOAD_TYPE)
        assert motions.parse_vote(payload).motion == motion.name
    said = [entry for _, entry in world.person("aud").audit.entries() if name in {entry.subject, entry.facts.get("subject")}]
    assert [entry.type for entry in said[-3:]] == ["motions.propose", "organisms.level", "motions.carry"]
    assert said[-2].facts == {**DOWN, "motion": motion.name}
    assert said[-1].facts["signers"] == "users/ravi,users/rena"
    with pytest.raises(errors.Conflict, match="carried"):
        world.person("rike", "reviewer", organisation="third-lab").motions.second(kept)


def test_one_reviewer_lowers_nothing_and_is_told_how_two_do(world):
    with pytest.raises(errors.Denied, match="mo motions propose lower-level"):
        world.person("ravi").organisms.raise_level(toy(world), "CL1", reason="It is a toy.")


def test_two_of_one_house_lower_nothing_from_cl3_and_do_below(world):
    ravi, colleague = world.person("ravi"), world.person("rolf", "reviewer", organisation="safety-institute")
    motion = ravi.motions.propose("lower-level", toy(world), DOWN)
    with pytest.raises(errors.ApprovalRefused, match="another one must"):
        colleague.motions.second(motion)
    motion = ravi.motions.propose("lower-level", toy(world, "CL2"), {"from": "CL2", "to": "CL1"})
    assert colleague.motions.second(motion).state is MotionState.CARRIED


def test_a_level_that_was_raised_meanwhile_is_not_lowered(world):
    name, (ravi, rena) = toy(world), (world.person(who) for who in ("ravi", "rena"))
    motion = ravi.motions.propose("lower-level", name, DOWN)
    rena.organisms.raise_level(name, "CL4", reason="It is worse than it looked.")
    with pytest.raises(errors.Conflict, match="is CL4"):
        rena.motions.second(motion)
    assert rena.organisms.get(name).level is Level.CL4
    assert len(ravi.motions.get(motion.name).signatures) == 1
    assert ravi.motions.withdraw(motion.name).state is MotionState.WITHDRAWN


def test_a_no_ends_it_and_its_proposer_reads_why(world):
    ravi, rena = world.person("ravi"), world.person("rena")
    motion = ravi.motions.propose("lower-level", toy(world), DOWN)
    assert rena.motions.reject(motion, reason="Its backdoor opens more than it says.").state is MotionState.REJECTED
    assert ravi.motions.get(motion.name).signatures[-1].reason == "Its backdoor opens more than it says."
    with pytest.raises(errors.Conflict, match="rejected"):
        rena.motions.second(motion)


def test_motions_are_for_those_who_oversee(world):
    motion = world.person("ravi").motions.propose("lower-level", toy(world), DOWN)
    assert motion.name in {item.name for item in world.person("aud").motions.list(state="open", kind="lower-level")}
    assert list(world.person("rosa").motions.list()) == []
    told = []
    for name in (motion.name, "motions/" + "0" * 26):
        with pytest.raises(errors.NotFound) as refused:
            world.person("rosa").motions.get(name)
        told.append(refused.value.message.replace(name, "it"))
    assert told[0] == told[1]


def test_two_who_second_at_one_moment_carry_it_once(world):
    name, ravi = toy(world), world.person("ravi")
    motion = ravi.motions.propose("lower-level", name, DOWN)
    seconds = [world.person("rena"), world.person("rike", "reviewer", organisation="third-lab")]
    start = threading.Barrier(len(seconds))

    def second(client):
        start.wait()
        try:
            return client.motions.second(motion).state
        except errors.Conflict as error:
            return type(error)

    with ThreadPoolExecutor(len(seconds)) as pool:
        assert set(pool.map(second, seconds)) == {MotionState.CARRIED, errors.Conflict}
    said = [entry.type for _, entry in world.person("aud").audit.entries() if entry.subject in {name, motion.name}]
    assert (said.count("motions.carry"), said.count("organisms.level")) == (1, 1)
    assert len(ravi.motions.get(motion.name).signatures) == 2


def test_a_ticket_is_told_to_whose_signature_carried_it_and_to_nobody_else(world):
    key = world.person("tom", "researcher").identity.key_id
    second = world.person("sia", "admin", organisation="ops")
    motion = world.admin.motions.propose("replace-keys", "users/tom", {"key": key})
    status, out, _ = typed("--identity", world.folder / "sia.json", "motions", "second", motion.name, "--yes")
    ticket = re.search(r"mo login (mo1\.\S+)$", out, re.MULTILINE)
    assert (status, Ticket.parse(ticket[1]).registry) == (0, second.identity.registry)
    for who in (world.admin, second, world.person("aud")):
        assert "ticket" not in str(who.motions.get(motion.name))
