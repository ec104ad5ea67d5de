"""Where a request stands, told over a real server; asked again; and of approvals that race, exactly one grant comes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_organisms import errors
from model_organisms.records import Condition, Modifier, RequestState, Stated, Turn
from model_organisms_registry.testing import running, settings

from tests.support.stories import WHY, published


def ask(world, version, rung="probe"):
    return world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)


def test_a_requester_sees_whose_move_it_is_and_until_when(world):
    version, _ = published(world, level="CL3")
    request, rosa = ask(world, version), world.person("rosa")
    first = rosa.access.get(request.name).clock
    assert (first.turn, first.given, first.missing, first.lapses) == (Turn.REVIEWERS, 0, 2, request.expire_time)
    assert {"organisations/safety-institute", "organisations/other-university"} <= set(first.organisations)
    approval = world.person("ravi").access.approve(request, reason="Sound.").approvals[0]
    second = rosa.access.get(request.name)
    assert (second.clock.given, second.clock.missing, second.clock.reviewers) == (1, 1, first.reviewers - 1)
    assert "organisations/safety-institute" not in second.clock.organisations
    assert approval.expire_time == second.approvals[0].expire_time
    world.person("rena").access.reject(request, reason="Say which detector.")
    over = rosa.access.get(request.name)
    assert (over.clock.turn, over.clock.since > request.create_time, over.clock.lapses) == (Turn.NOBODY, True, None)


def test_what_was_refused_is_asked_again_and_reviewers_see_the_chain(world):
    version, _ = published(world, level="CL2")
    rosa, ravi = world.person("rosa"), world.person("ravi")
    first = ask(world, version)
    ravi.access.reject(first, reason="Say which detector.")
    second = rosa.access.reapply(first.name, justification=WHY + " The detector is a linear probe.")
    rosa.access.withdraw(second.name)
    third = rosa.access.reapply(second.name)
    assert third.justification == second.justification
    seen = ravi.access.get(third.name).history
    assert [(old.name, old.state, old.reason) for old in seen] == [
        (second.name, RequestState.WITHDRAWN, ""),
        (first.name, RequestState.REJECTED, "Say which detector."),
    ]
    granted = ravi.access.approve(third, reason="Now I see.")
    renewed = rosa.access.renew(granted.grant)
    (last, *_) = ravi.access.get(renewed.name).history
    assert (last.name, last.grant) == (third.name, granted.grant)
    with pytest.raises(errors.Conflict, match="renew"):
        rosa.access.reapply(third.name)


def test_another_persons_request_is_asked_again_in_the_words_for_none(world):
    version, _ = published(world)
    request = ask(world, version)
    world.person("rosa").access.withdraw(request.name)
    told = []
    for name in (request.name, "requests/" + "0" * 26):
        with pytest.raises(errors.NotFound) as refused:
            world.person("sybil", "researcher", organisation="elsewhere").access.reapply(name)
        told.append(refused.value.message.replace(name, "it"))
    assert told[0] == told[1]
    both = world.person("rory", "researcher", "reviewer", organisation="detection-lab")
    with pytest.raises(errors.Denied):
        both.access.reapply(request.name)


def test_an_answer_to_what_was_open_needs_nobody_any_more(world):
    version, _ = published(world, level="CL1")
    world.person("pia").organisms.set_conditions(version.name.split("/versions")[0], conditions=["blinded"])
    request = ask(world, version, "sample")
    assert (request.state, request.needed) == (RequestState.PENDING, 1)
    amended = world.person("rosa").access.amend(request, stated=Stated(accepts=(Condition(Modifier.BLINDED),)))
    assert (amended.state, amended.needed) == (RequestState.GRANTED, 0)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_of_approvals_that_race_exactly_one_grant_comes(database, request, tmp_path):
    url = request.getfixturevalue("postgresql_url") if database == "postgresql" else ""
    people = [("pia", "publisher", "nursery"), ("rosa", "researcher", "lab-r"), ("aud", "auditor", "office")]
    people += [(f"r{number}", "reviewer", f"house-{number}") for number in range(4)]
    with running(settings(tmp_path / "data", database=url), people=people) as world:
        version, _ = published(world, level="CL3")
        asked = [ask(world, version) for _ in range(2)]
        reviewers = [world.person(f"r{number}") for number in range(4)]
        for one in asked:
            start = threading.Barrier(len(reviewers))

            def approve(reviewer, one=one, start=start):
                start.wait()
                try:
                    return reviewer.access.approve(one, reason="Fine.").state
                except (errors.Conflict, errors.Unavailable) as late:
                    return type(late)

            with ThreadPoolExecutor(len(reviewers)) as pool:
                said = list(pool.map(approve, reviewers))
            assert said.count(RequestState.GRANTED) == 1
        entries = [entry for _, entry in world.person("aud").audit.entries()]
        made = [entry.facts["request"] for entry in entries if entry.type == "access.grant"]
        assert sorted(made) == sorted(one.name for one in asked)
        assert len(list(world.person("rosa").access.grants())) == len(asked)
        for one in asked:
            stands = world.person("rosa").access.get(one.name)
            assert (stands.state, len(stands.approvals)) == (RequestState.GRANTED, 2)
