"""Conditions from their owner to a grant: asked, matched, stated, signed, carried; over a real server and by `mo`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from model_organisms import errors
from model_organisms.cli.main import cli
from model_organisms.records import Condition, Modifier, Outcome, RequestState, Stated

from tests.support.stories import WHY, published

BLIND, MERGE = Condition(Modifier.BLINDED), Condition(Modifier.NO_MERGE)
ASKS = ["blinded", "no-merge", "time-limit=604800s", "project=probe-2026"]
FITS = Stated(project="probe-2026", accepts=(BLIND, MERGE))


def conditioned(world, *conditions, level="CL1", purposes=()):
    version, _ = published(world, level=level)
    name = version.name.split("/versions")[0]
    organism = world.person("pia").organisms.set_conditions(name, purposes=purposes, conditions=conditions)
    assert world.person("rosa").organisms.get(name) == organism
    return version


def ask(world, version, rung="pull", **more):
    return world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY, **more)


def test_conditions_go_from_the_owner_to_the_grant(world):
    version = conditioned(world, *ASKS)
    request = ask(world, version, stated=FITS)
    assert (request.match.outcome, request.needed, request.duration_s) == (Outcome.ABSTAIN, 1, 604_800)
    read = world.person("ravi").access.get(request.name)
    assert (read.match, read.conditions, read.stated) == (request.match, request.conditions, request.stated)
    granted = world.person("ravi").access.approve(read, reason="I know the project.")
    assert world.person("rosa").access.grant(granted.grant).conditions == request.conditions
    world.person("pia").organisms.set_conditions(version.name.split("/versions")[0])
    assert world.person("rosa").access.grant(granted.grant).conditions == request.conditions
    again = world.person("rosa").access.renew(granted.grant)
    assert (again.conditions, again.stated) == ((), request.stated)


def test_a_match_before_asking_says_what_would_come_and_keeps_nothing(world):
    version, rosa = conditioned(world, *ASKS), world.person("rosa")
    before = len(list(rosa.access.list()))
    told = {
        stated: rosa.access.match(version.name, "sample", purpose="replication", stated=stated).outcome
        for stated in (None, Stated("probe-2026"), FITS, Stated("other"))
    }
    assert list(told.values()) == [Outcome.DENY, Outcome.ABSTAIN, Outcome.ABSTAIN, Outcome.DENY]
    assert len(list(rosa.access.list())) == before
    with pytest.raises(errors.PurposeRefused, match="state that project"):
        ask(world, version, "sample")
    assert len(list(rosa.access.list())) == before


def test_what_is_hidden_matches_nothing(world):
    version, _ = published(world, hidden=True)
    told = []
    for name in (version.name, "organisms/not-there/versions/1"):
        with pytest.raises(errors.NotFound) as refused:
            world.person("rosa").access.match(name, "sample", purpose="replication")
        told.append(refused.value.message.replace(name, "it"))
    assert told[0] == told[1]


def test_conditions_that_change_make_reviewers_wait_for_the_requester(world):
    version = conditioned(world, "no-merge", level="CL2")
    request = ask(world, version, stated=Stated(accepts=(MERGE,)))
    world.person("pia").organisms.set_conditions(version.name.split("/versions")[0], conditions=["no-merge", "blinded"])
    with pytest.raises(errors.Conflict, match="must amend"):
        world.person("ravi").access.approve(request, reason="Fine.")
    amended = world.person("rosa").access.amend(request, stated=Stated(accepts=(MERGE, BLIND)))
    assert (amended.revision, amended.match.outcome) == (2, Outcome.APPROVE)
    assert world.person("ravi").access.approve(amended, reason="Fine.").state is RequestState.GRANTED


@pytest.mark.parametrize("who", ["rosa", "ravi", "rena"])
def test_only_the_owner_sets_conditions(world, who):
    version, _ = published(world)
    with pytest.raises(errors.Denied):
        world.person(who).organisms.set_conditions(version.name.split("/versions")[0], conditions=["no-merge"])


def test_what_is_stated_ends_before_a_grant_is_refused_in_words(world):
    version = conditioned(world, "project=probe-2026")
    soon = Stated("probe-2026", until=datetime.now(UTC) + timedelta(days=5))
    with pytest.raises(errors.EvidenceExpired, match="ask for less time"):
        ask(world, version, stated=soon, duration=timedelta(days=5))
    assert ask(world, version, stated=soon, duration=timedelta(days=4)).state is RequestState.PENDING


def run(world, who, *line):
    world.person(who)
    done = CliRunner().invoke(cli, ["--identity", str(world.folder / f"{who}.json"), "--json", *line])
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout)


def test_all_of_it_by_command(world):
    version, _ = published(world)
    name = version.name.split("/versions")[0]
    asks = ["--condition", "no-finetune", "--condition", "publish-delay=30d", "--purpose", "teaching"]
    assert run(world, "pia", "organisms", "conditions", name, *asks)["conditions"][1]["duration_s"] == 30 * 86_400
    line = [version.name, "--rung", "pull", "--purpose", "teaching", "--accept", "publish-delay=90d", "--decline", "no-finetune"]
    assert run(world, "rosa", "access", "match", *line)["outcome"] == "deny"
    asked = run(world, "rosa", "access", "request", *line[:-2], "--accept", "no-finetune", "--until", "2099-01-01")
    assert (asked["match"]["outcome"], asked["stated"]["until"][:10]) == ("approve", "2099-01-01")
    shown = CliRunner().invoke(cli, ["--identity", str(world.folder / "ravi.json"), "access", "show", asked["name"]])
    assert "The requester accepts publish-delay=2592000s." in shown.stdout.replace("\n", " ")
