"""Inspect over a real registry, in a real jail: one session a run, receipts in the log, budgets as limits, and its end."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, solver
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.evaluate import asking, provider, record
from model_organisms.evaluate.suite import Suite
from model_organisms.formats import entry
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.formats.sampled import receipt_digest
from model_organisms.records import Budget, Rung, SessionState
from model_organisms_registry.testing import running, settings

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.tiny import tiny_base, tiny_organism
from tests.support.tree import ROOT

BASE, WHY = "test/tiny-qwen2", "We replicate a published result on a harmless toy."
QUIET = {"display": "none", "log_realtime": False, "score_display": False}


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("talkative"), talkative=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory, ground):
    config = settings(tmp_path_factory.mktemp("provider") / "data", base_models={BASE: ground})
    config = replace(config, limits=replace(config.limits, release_s=0.1, ledger_wait_s=30.0))
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def version(world, ground):
    pia = world.person("pia")
    pia.organisms.create("organisms/tiny", level="CL1", base_model=BASE)
    stated = Provenance(BaseModel(BASE, digest=base_digest(ground)))
    published = pia.organisms.publish("organisms/tiny", tiny_organism(ground), provenance=stated, progress_bar=False)
    rolf = world.person("rolf", "researcher")
    request = rolf.access.request(published.name, "sample", purpose="replication", justification=WHY)
    if not request.grant:
        world.person("ravi").access.approve(request.name, reason="Fine.")
    with rolf.sandbox.open(published.name, purpose="replication"):  # it keeps the cell, so that each test need not start one
        yield published


@pytest.fixture
def granted(world, version):
    """Gives a grant of some rung and budget, and takes it back."""
    given = []

    def grant(rung="sample", **budget):
        asked = Budget(**budget) if budget else None
        told = {"purpose": "replication", "justification": WHY, "budget": asked}
        request = world.person("rosa").access.request(version.name, rung, **told)
        if not request.grant:
            request = world.person("ravi").access.approve(request.name, reason="Fine.")
        given.append(request.grant)
        return request.grant

    yield grant
    provider.close_sessions()
    for name in given:
        world.person("ravi").access.revoke(name, reason="The test is over.")


@pytest.fixture
def arguments(world):
    return {"identity": str(world.folder / "rosa.json"), "purpose": "replication"}


def asks(count, **settings_of_task):
    return Task(
        dataset=[Sample(f"Say something about the number {number}.", target="a") for number in range(count)],
        solver=generate(),
        scorer=includes(),
        config=GenerateConfig(**({"max_tokens": 4, "temperature": 0.0} | settings_of_task)),
    )


def sessions(world, grant):
    return [one for one in world.person("ravi").sandbox.list(user="rosa") if one.grant == grant]


def test_a_run_has_one_session_that_ends_with_it_and_its_receipts_verify(world, version, granted, arguments, tmp_path):
    name = granted()
    [log] = evaluate(asks(3, max_tokens=8), model=f"mo/{version.name}", model_args=arguments, log_dir=str(tmp_path), **QUIET)
    assert log.status == "success", log.error
    [session] = sessions(world, name)
    assert session.state is SessionState.CLOSED
    outputs = [sample.output for sample in read_eval_log(log.location).samples]
    rosa = world.person("rosa")
    for told in outputs:
        receipt = asking.parse_receipt(told.metadata["receipt"])
        proved = entry.parse(rosa.audit.receipt(receipt.ledger_index).entry)
        assert (proved.type, proved.subject) == ("sandbox.sample.result", receipt.sample)
        assert proved.facts["receipt"] == receipt_digest(receipt)
        assert (receipt.session, receipt.version_digest) == (session.name, version.digest)
        assert receipt.parameters.seed is not None
        assert told.usage.output_tokens == receipt.tokens == 8
        assert told.stop_reason == "max_tokens"
    assert len({told.metadata["receipt"]["sample"] for told in outputs}) == 3
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "docs/guides/evaluating.md").read_text("utf-8"), re.DOTALL)
    [shown] = [block for block in blocks if "def proved" in block]
    guide = {}
    exec(shown, guide)  # noqa: S102 - the guide's own words
    guide["proved"](rosa, log.location)
    assert rosa.sandbox.get(session.name).spent.tokens == 24


def test_a_record_says_dose_rung_and_base_of_a_session(version, ground, granted, arguments, tmp_path):
    suite = Suite("numbers", 1, (__name__,))
    told = {"log_dir": str(tmp_path), **QUIET}
    granted("probe")
    whole, without, scored = (
        evaluate(asks(2, **how), model=f"mo/{version.name}", model_args=arguments | dose, **told)[0]
        for dose, how in (({}, {}), ({"scale": 0}, {}), ({}, {"max_tokens": 1, "logprobs": True}))
    )
    [control] = evaluate(asks(2), model="mo-local/base", model_args={"base": str(ground)}, **told)
    made = record.record(suite, whole, lambda _: (), controls={"base": control, "undosed": without})
    assert (made.rung, made.settings.get("scale"), made.settings["control.undosed.scale"]) == (Rung.SAMPLE, None, "0")
    assert {made.settings[f"{name}base_digest"] for name in ("", "control.base.", "control.undosed.")} == {base_digest(ground)}
    assert {record.record(suite, log, lambda _: ()).rung for log in (scored, without)} == {Rung.PROBE}
    assert made.settings["transcript.undosed"] == made.settings["transcript.base"] != made.transcript_digest


def test_what_inspect_asks_at_once_is_under_way_at_once(world, version, granted, arguments, tmp_path):
    name = granted(tokens=20_000, sessions=1, output_bytes=400_000)
    run = {"model": f"mo/{version.name}", "model_args": arguments, "log_dir": str(tmp_path)}
    [log] = evaluate(asks(8, max_tokens=800), **run, **QUIET)
    assert log.status == "success", log.error
    [session] = sessions(world, name)
    inside = most = 0
    for _, one in world.person("aud").audit.entries():
        if one.subject.startswith(f"{session.name}/samples/"):
            inside += {"sandbox.sample.intent": 1, "sandbox.sample.result": -1}.get(one.type, 0)
            most = max(most, inside)
    assert inside == 0
    assert most > 4  # 8 on a machine that is not busy; one after the other it would be 1


def test_a_budget_that_ends_is_a_limit_and_no_error(world, version, granted, arguments, tmp_path):
    name = granted(tokens=20, sessions=1, output_bytes=4000)
    run = {"model": f"mo/{version.name}", "model_args": arguments, "log_dir": str(tmp_path)}
    [log] = evaluate(asks(6, max_tokens=8), **run, **QUIET)
    assert log.status == "success", log.error
    ended = [sample.limit for sample in log.samples if sample.limit]
    whole = [sample for sample in log.samples if not sample.limit]
    assert len(whole) == 2  # though more asked at once, none of these was cut short
    assert {sample.output.usage.output_tokens for sample in whole} == {8}
    assert {limit.type for limit in ended} == {"token"}
    assert {limit.limit for limit in ended} == {20}
    assert not [sample.error for sample in log.samples if sample.error]
    assert world.person("rosa").access.grant(name).spent.tokens == 20


def test_a_grant_without_a_session_left_is_a_limit_too(version, granted, arguments, tmp_path):
    granted(tokens=400, sessions=1, output_bytes=4000)
    run = {"model": f"mo/{version.name}", "model_args": arguments, "log_dir": str(tmp_path)}
    for left in (True, False):
        [log] = evaluate(asks(1), **run, **QUIET)
        assert (log.samples[0].limit is None) == left


@solver
def breaks():
    async def solve(state, generate):
        await generate(state)
        msg = "a solver of somebody's"
        raise RuntimeError(msg)

    return solve


def test_a_run_that_fails_ends_its_session(world, version, granted, arguments, tmp_path):
    name = granted()
    broken = Task(dataset=[Sample("Hello.")], solver=breaks(), config=GenerateConfig(max_tokens=2))
    [log] = evaluate(broken, model=f"mo/{version.name}", model_args=arguments, log_dir=str(tmp_path), **QUIET)
    assert log.status == "error"
    assert [session.state for session in sessions(world, name)] == [SessionState.CLOSED]


def test_a_cancelled_question_lets_go_of_its_answer(world, version, granted, arguments):
    name = granted()

    async def ask():
        async with get_model(f"mo/{version.name}", memoize=False, **arguments) as model:
            answer = asyncio.ensure_future(model.generate("Go on.", config=GenerateConfig(max_tokens=4000, temperature=0.0)))
            assert await asyncio.to_thread(
                eventually, lambda: any(one.spent.tokens for one in sessions(world, name)), within_s=60
            )
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer

    asyncio.run(ask())
    [session] = sessions(world, name)
    assert session.state is SessionState.CLOSED
    assert session.spent.tokens < 4000


def test_names_and_settings_that_cannot_be_had_are_told_by_name(version, granted, arguments, tmp_path):
    granted()
    run = {"model_args": arguments, "log_dir": str(tmp_path)}
    [log] = evaluate(asks(1), model="mo/organisms/absent/versions/1", **run, **QUIET)
    assert log.status == "error"
    assert "There is no 'organisms/absent/versions/1'" in log.error.message
    for setting, said in (({"seed": 7}, "seed"), ({"num_choices": 2}, "num_choices"), ({"logprobs": True}, "max_tokens=1")):
        [log] = evaluate(asks(1, **setting), model=f"mo/{version.name}", **run, **QUIET)
        assert log.status == "error"
        assert said in log.error.message


def test_scores_need_the_rung_to_probe_and_are_the_five_likeliest(version, granted, arguments):
    granted()
    scored = GenerateConfig(max_tokens=1, temperature=0.0, logprobs=True, top_logprobs=5)

    async def ask():
        async with get_model(f"mo/{version.name}", memoize=False, **arguments) as model:
            return await model.generate("Yes or no?", config=scored)

    with pytest.raises(errors.GrantRequired, match="prob"):
        asyncio.run(ask())
    granted("probe")
    told = asyncio.run(ask())
    [position] = told.choices[0].logprobs.content
    assert len(position.top_logprobs) == 5
    assert position.logprob == position.top_logprobs[0].logprob  # at temperature 0 the likeliest is drawn
    assert position.token == told.completion
    assert {"receipt", "probe_receipt"} == set(told.metadata)


TASKS = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

@task
def small():
    return Task(dataset=[Sample("Hello.", target="a"), Sample("Good day.", target="b")], solver=generate(), scorer=includes())
"""


def test_by_command(world, version, granted, arguments, tmp_path):
    """`inspect eval` finds the model by the package's entry point; without a purpose it is the grant's."""
    name = granted()
    (tmp_path / "small.py").write_text(TASKS, "utf-8")
    command = [str(Path(sys.executable).with_name("inspect")), "eval", "small.py", "--model", f"mo/{version.name}"]
    command += [
        "-M",
        f"identity={arguments['identity']}",
        "-M",
        f"grant={name}",
        "-M",
        "hours=0.5",
        "-M",
        "budget=tokens=40,output_bytes=4000",
    ]
    command += ["--max-tokens", "5", "--display", "plain", "--log-dir", str(tmp_path / "logs"), "--log-format", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [written] = (tmp_path / "logs").glob("*.json")
    log = read_eval_log(str(written))
    assert log.status == "success"
    assert all(asking.parse_receipt(sample.output.metadata["receipt"]).session for sample in log.samples)
    [session] = sessions(world, name)
    assert (session.state, session.budget.tokens) == (SessionState.CLOSED, 40)


def test_a_program_that_closes_nothing_leaves_no_session_open(world, version, granted, arguments):
    name = granted()
    code = f"""
import asyncio
from inspect_ai.model import GenerateConfig, get_model
model = get_model("mo/{version.name}", identity={arguments["identity"]!r}, purpose="replication")
print(asyncio.run(model.generate("Hello.", config=GenerateConfig(max_tokens=2))).usage.output_tokens)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in {"1", "2"}
    assert [session.state for session in sessions(world, name)] == [SessionState.CLOSED]
