"""Inspect over models in memory: many answers in shared steps, scores against the model's own, pulls, folders and bare bases."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
import torch
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, solver
from model_organisms import errors, loading
from model_organisms.bases import base_digest
from model_organisms.evaluate.driving import Driver
from model_organisms.evaluate.local import LocalAPI
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Message, SamplingParameters
from model_organisms.sampling import Engine

from tests.support.tiny import tiny_base, tiny_organism

GREEDY = GenerateConfig(max_tokens=24, temperature=0.0)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("ground"), talkative=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ground):
    bundle = tmp_path_factory.mktemp("organism") / "bundle"
    bundle.mkdir()
    for path, data in tiny_organism(ground).items():
        (bundle / path).write_bytes(data)
    return bundle


@pytest.fixture
def engine(ground):
    return Engine(loading.load_base(ground, progress=False), rows=16)


def told(model, prompts, config=GREEDY):
    async def ask():
        async with model:
            return await asyncio.gather(*(model.generate(prompt, config=config) for prompt in prompts))

    return asyncio.run(ask())


def test_many_answers_come_in_shared_steps(engine):
    steps, count = Counter(), 12
    step = engine.step

    def counted():
        steps["taken"] += 1
        return step()

    engine.step = counted
    driver = Driver(engine)
    try:
        parameters = SamplingParameters(max_tokens=50, temperature=0.0)
        with driver.alone():  # so that all have asked before the first step
            answers = [driver.ask(None, [Message("user", f"Number {each}.")], parameters) for each in range(count)]
        drawn = [answer.result(60) for answer in answers]
    finally:
        driver.close()
    assert {len(each.tokens) for each in drawn} == {50}
    assert steps["taken"] < 50 + count  # one by one it would be 600


def test_a_question_that_is_cancelled_refused_or_overtaken_by_the_end_says_so(engine):
    driver = Driver(engine)
    endless = SamplingParameters(max_tokens=8000, temperature=0.0)
    hello = [Message("user", "Hello.")]
    gone = driver.ask(None, hello, endless)
    assert gone.cancel()
    with pytest.raises(errors.InvalidArgument, match="top_p"):
        driver.ask(None, hello, SamplingParameters(top_p=7.0)).result(60)
    assert len(driver.ask(None, hello, SamplingParameters(max_tokens=3, temperature=0.0)).result(60).tokens) == 3
    with driver.alone() as lent:
        assert len(lent._batch.all) == 0  # the cancelled one has left
    late = driver.ask(None, hello, endless)
    driver.close()
    with pytest.raises(errors.Conflict, match="closed"):
        late.result(60)
    with pytest.raises(errors.Conflict, match="closed"):
        driver.ask(None, hello, endless)


def test_an_engine_that_breaks_is_told_to_all_and_goes_on(engine):
    driver, step, broken = Driver(engine), engine.step, threading.Event()

    def breaks():
        if not broken.is_set():
            broken.set()
            raise RuntimeError("a fault of ours")
        return step()

    engine.step = breaks
    hello, short = [Message("user", "Hello.")], SamplingParameters(max_tokens=3, temperature=0.0)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        driver.ask(None, hello, short).result(60)
    assert len(driver.ask(None, hello, short).result(60).tokens) == 3
    driver.close()


def test_the_base_alone_answers_as_transformers_does(ground):
    [answer] = told(get_model("mo-local/base", base=str(ground), memoize=False), ["Hello there."])
    base = loading.load_base(ground, progress=False)
    ids = Engine(base).speech(None).token_ids([Message("user", "Hello there.")])
    with torch.inference_mode():
        out = base.model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, attention_mask=torch.ones(1, len(ids)))
    assert answer.completion == base.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len(ids), 24)
    assert answer.metadata["base_digest"] == base_digest(ground)
    assert "adapter_digests" not in answer.metadata


def test_scores_are_the_models_own(ground, folder):
    scored = GenerateConfig(max_tokens=5, temperature=0.0, logprobs=True, top_logprobs=3)
    [answer] = told(get_model(f"mo-local/{folder}", base=str(ground), memoize=False), ["Hello there."], scored)
    positions = answer.choices[0].logprobs.content
    assert len(positions) == 5
    organism = loading.attach(
        loading.load_base(ground, progress=False), {path.name: path.read_bytes() for path in folder.iterdir()}
    )
    ids = organism.speech.token_ids([Message("user", "Hello there.")])
    with torch.inference_mode():
        for position in positions:
            logs = organism.model(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
            best = logs.topk(3)
            assert [each.logprob for each in position.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-3)
            assert [each.token for each in position.top_logprobs] == [organism.tokenizer.decode([at]) for at in best.indices]
            assert position.logprob == pytest.approx(float(best.values[0]), abs=1e-3)
            ids.append(int(best.indices[0]))


def test_a_seed_repeats_an_answer_and_a_dose_of_nothing_is_the_base(ground, folder):
    warm = GenerateConfig(max_tokens=16, temperature=1.0, seed=5)
    with_it = [told(get_model(f"mo-local/{folder}", base=str(ground), memoize=False), ["Hello."], warm)[0] for _ in range(2)]
    assert with_it[0].completion == with_it[1].completion
    assert with_it[0].metadata["seed"] == with_it[1].metadata["seed"]
    without = told(get_model(f"mo-local/{folder}", base=str(ground), scale=0.0, memoize=False), ["Hello."])[0]
    bare = told(get_model("mo-local/base", base=str(ground), memoize=False), ["Hello."])[0]
    full = told(get_model(f"mo-local/{folder}", base=str(ground), memoize=False), ["Hello."])[0]
    assert without.completion == bare.completion != full.completion


@solver
def bargains(turns):
    """Two models talk by turns, the one under test first: the shape of several public tasks (`make_me_pay`, `makemesay`)."""

    async def solve(state, generate):
        for _ in range(turns):
            state = await generate(state)
            heard = await get_model(role="mark").generate([ChatMessageUser(content=state.output.completion)], config=GREEDY)
            state.messages.append(ChatMessageUser(content=heard.completion or "..."))
        return state

    return solve


def test_a_task_of_two_voices_runs_with_an_organism_and_its_base(ground, folder, tmp_path):
    where = {"base": str(ground), "device": "cpu", "memoize": False}
    organism, mark = get_model(f"mo-local/{folder}", **where), get_model("mo-local/base", **where)
    told = {"model_roles": {"mark": mark}, "max_tokens": 8, "temperature": 0.0, "log_dir": str(tmp_path), "display": "none"}
    [log] = evaluate(Task(dataset=[Sample("Hi!"), Sample("Well?")], solver=bargains(2)), model=organism, **told)
    assert log.status == "success", log.error
    assert {len(sample.messages) for sample in log.samples} == {5}
    assert set(log.stats.model_usage) == {f"mo-local/{folder}", "mo-local/base"}
    organism.api.close()
    mark.api.close()


def test_white_box_suites_borrow_engine_and_organism(ground, folder):
    api = LocalAPI(str(folder), base=str(ground))
    with api.alone() as lent:
        logits = lent.engine.logits(lent.organism, [1, 2, 3])
        last = lent.engine.logits(lent.organism, [1, 2, 3], last=1)
    assert logits.shape[0] == 3
    assert torch.allclose(last[0], logits[2], atol=1e-4)
    assert api.engine is lent.engine
    assert api.organism is lent.organism
    api.close()


def test_what_cannot_be_had_is_refused_by_name(ground, tmp_path):
    with pytest.raises(errors.InvalidName):
        LocalAPI("organisms/tiny")
    with pytest.raises(errors.ConfigurationInvalid, match="'colour'"):
        LocalAPI("base", colour="red")
    with pytest.raises(errors.InvalidBundle):
        told(get_model(f"mo-local/{tmp_path}", base=str(ground), memoize=False), ["Hello."])
    many = GenerateConfig(logprobs=True, top_logprobs=21)
    with pytest.raises(errors.InvalidArgument, match="top_logprobs"):
        told(get_model("mo-local/base", base=str(ground), memoize=False), ["Hello."], many)


def test_a_pulled_organism_answers_in_a_whole_evaluation(ground, world, tmp_path):
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/local", level="CL1", base_model="test/tiny")
    stated = Provenance(BaseModel("test/tiny", digest=base_digest(ground)))
    version = pia.organisms.publish("organisms/local", tiny_organism(ground), provenance=stated, progress_bar=False)
    why = "We replicate a published result on a harmless toy."
    request = rosa.access.request(version.name, "pull", purpose="replication", justification=why)
    if not request.grant:
        world.person("ravi").access.approve(request.name, reason="Fine.")
    model = get_model(
        f"mo-local/{version.name}", identity=str(world.folder / "rosa.json"), base=str(ground), device="cpu", memoize=False
    )
    asks = Task(dataset=[Sample(f"Number {each}.", target="a") for each in range(5)], solver=generate(), scorer=includes())
    [log] = evaluate(
        asks, model=model, max_tokens=8, log_dir=str(tmp_path), display="none", log_realtime=False, score_display=False
    )
    assert log.status == "success", log.error
    assert {sample.output.usage.output_tokens for sample in log.samples} <= set(range(1, 9))
    digests = {digest for sample in log.samples for digest in sample.output.metadata["adapter_digests"]}
    assert digests == set(model.api.organism.adapter_digests)
    held = model.api._held
    model.api.close()
    assert held is not model.api._held or model.api._driver is None
