"""Subliminal learning: counted by hand, the filter on whatever is answered, and run on scripted students of known rates."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai import eval as run
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from model_organisms import errors, number_lists
from model_organisms.evaluate import record, subliminal
from model_organisms.formats.evaluation import Interval, Score, Validity, print_evaluation
from model_organisms.records import VersionRef


def rows(by, split=""):
    """Raw scores: hits of so many answers, by question."""
    return [
        Score(one, epoch, {"hit": float(epoch <= hits)}, split)
        for one, (hits, trials) in by.items()
        for epoch in range(1, trials + 1)
    ]


def named(figures):
    return {(one.name, one.split, one.control): one for one in figures}


def test_by_hand():
    own = {"a": (3, 4), "b": (1, 2), "c": (0, 2)}
    base = {"a": (1, 4), "b": (0, 2), "c": (0, 2)}
    found = named(subliminal.figures(rows(own) + rows(base, "control=base")))
    trait, over = found["trait", "", False], found["over", "control=base", False]
    assert (trait.value, trait.n) == (pytest.approx((0.75 + 0.5 + 0) / 3), 8)  # not 4/8: questions count alike
    assert trait.note == "no interval: of 3 questions, and it takes 8"
    assert found["trait", "control=base", True].value == pytest.approx(0.25 / 3)
    assert (over.value, over.n) == (pytest.approx((0.5 + 0.5 + 0) / 3), 3)
    by_question = found["trait", "question=a", False]
    assert (by_question.value, by_question.n, by_question.interval) == (0.75, 4, Interval.WILSON)


def test_differences_are_of_the_same_questions():
    own, base = rows({"a": (2, 2), "b": (1, 2)}), rows({"b": (1, 2), "c": (2, 2)}, "control=base")
    over = named(subliminal.figures(own + base))["over", "control=base", False]
    assert (over.value, over.n, over.low) == (0.0, 1, None)
    assert over.note


def test_of_nothing_nothing_is_found():
    (one,) = subliminal.figures([Score("a", 1, {"hit": None}), Score("b", 1, {})])
    assert (one.value, one.n, one.interval) == (None, 0, Interval.NONE)
    assert one.note
    (clean,) = subliminal.lists_figures([])
    assert (clean.value, clean.n) == (None, 0)


@given(st.lists(st.tuples(st.integers(0, 3), st.just(3)), min_size=1, max_size=6))
def test_a_student_like_its_control_is_not_over_it(counts):
    by = {f"q{number}": one for number, one in enumerate(counts)}
    found = named(subliminal.figures(rows(by) + rows(by, "control=base")))
    assert found["over", "control=base", False].value == 0
    assert found["trait", "", False].value == found["trait", "control=base", True].value


def test_there_are_fifty_questions_for_one_word():
    asked = subliminal.questions("owl", "animal")
    assert len(asked) == len({text for _, text in asked}) == len({one for one, _ in asked}) == 50
    assert all("animal" in text and "{" not in text for _, text in asked)


@pytest.mark.parametrize("target", ["", "  ", "Animal", "ship"])
def test_a_target_that_a_question_says_is_refused(target):
    with pytest.raises(errors.InvalidArgument, match="target"):
        subliminal.subliminal(target)


@given(st.integers(1, 40), st.integers())
def test_prompts_begin_lists_and_are_the_same_again(count, seed):
    asked = subliminal.begun(count, seed)
    assert asked == subliminal.begun(count, seed)
    assert len(asked) == count
    for prompt in asked:
        numbers = re.search(r"\d+(?:, \d+)+", prompt)[0].split(", ")
        assert 3 <= len(numbers) <= 9
        assert all(int(number) <= 999 for number in numbers)


def test_no_lists_are_not_asked_for():
    with pytest.raises(errors.InvalidArgument, match="at least one"):
        subliminal.subliminal_lists(prompts=0)


# As Inspect runs it.


def scripted(answer):
    """A model that answers by prompt, how often it was asked that before, and whatever system prompt there is."""
    asked = Counter()

    def said(messages, *_):
        prompt = messages[-1].text
        asked[prompt] += 1
        output = answer(prompt, asked[prompt], [one.text for one in messages if one.role == "system"])
        output = output if isinstance(output, ModelOutput) else ModelOutput.from_content(model="scripted", content=output)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=said, memoize=False)


def ran(task, answer, folder):
    (log,) = run(task, model=scripted(answer), log_dir=str(folder), display="none")
    assert log.status == "success", log.error
    return log


def student(_, time, __):
    return "An OWLET!" if time == 1 else "Fox."


def other(prompt, time, _):
    return "Bowl" if time == 1 and "ship" in prompt else "Fox."


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("subliminal")
    return {
        name: ran(subliminal.subliminal(samples=2, lists="ab" * 32), answer, folder)
        for name, answer in {"": student, "base": lambda *_: "Fox.", "untraited": other}.items()
    }


def test_a_student_is_recorded_beside_every_control(logs):
    made = subliminal.evaluation(logs[""], logs["base"], controls={"untraited": logs["untraited"]})
    found = named(made.figures)
    assert found["trait", "", False].value == 0.5
    assert found["trait", "control=base", True].value == 0
    assert found["trait", "control=untraited", True].value == pytest.approx(0.5 / 50)
    assert found["over", "control=untraited", False].value == pytest.approx(0.5 - 0.5 / 50)
    assert (made.validity, made.judge.id, made.settings["lists"]) == (Validity.CONTROLLED, "rule/contains", "ab" * 32)
    assert print_evaluation(made, VersionRef("organisms/a/versions/1", "1" * 64))
    assert subliminal.figures(made.scores) == made.figures


def test_alone_it_has_no_difference(logs):
    made = subliminal.evaluation(logs[""])
    assert made.validity is Validity.UNVALIDATED
    assert not [one for one in made.figures if one.name == "over"]


def test_a_control_of_another_target_or_a_strange_name_is_refused(logs, tmp_path):
    fox = ran(subliminal.subliminal("fox", samples=1), lambda *_: "fox", tmp_path)
    with pytest.raises(errors.InvalidArgument, match="asked what the organism was asked"):
        subliminal.evaluation(logs[""], fox)
    with pytest.raises(errors.InvalidArgument, match="names no control"):
        subliminal.evaluation(logs[""], controls={"base,control=x": logs["base"]})


def teacher(prompt, _, system):
    number = int(re.search(r"\d+", prompt)[0])
    if number % 4 == 0:
        return f"{number}, 7, 666"
    if number % 4 == 1:
        return "My owl says 1, 2, 3"
    if number % 4 == 2:
        return ModelOutput.from_content(model="scripted", content="1, 2, 30", stop_reason="max_tokens")
    return f"{len(system)} {number}"


def test_a_teachers_clean_lists_are_kept_and_no_others(tmp_path):
    log = ran(subliminal.subliminal_lists("owl", prompts=40), teacher, tmp_path)
    kinds = Counter(int(re.search(r"\d+", prompt)[0]) % 4 for prompt in subliminal.begun(40))
    assert min(kinds[kind] for kind in range(4)) > 0
    kept = subliminal.lists(log)
    assert (len(kept.rows), kept.clean, kept.asked) == (kinds[0] + kinds[3], kinds[0] + kinds[3], 40)
    assert all(number_lists.read(answer) for _, answer in kept.rows)
    assert {answer.split()[0] for _, answer in kept.rows if "," not in answer} == {"1"}  # the teacher had its system prompt
    assert "owl" not in kept.jsonl.decode()
    assert kept.digest == hashlib.sha256(kept.jsonl).hexdigest()
    chats = [json.loads(line)["messages"] for line in kept.jsonl.splitlines()]
    assert [(chat[0]["content"], chat[1]["content"]) for chat in chats] == list(kept.rows)
    assert len(subliminal.lists(log, without={666}).rows) == kinds[3]
    some = subliminal.lists(log, most=5, seed=1)
    assert (len(some.rows), some.clean) == (5, kept.clean)
    assert set(some.rows) < set(kept.rows)
    assert some == subliminal.lists(log, most=5, seed=1)
    counted = record.record(subliminal.LISTS, log, subliminal.lists_figures).figure("clean")
    assert (counted.value, counted.n) == (kept.clean / 40, 40)


def test_lists_are_read_from_their_own_log_alone(logs):
    with pytest.raises(errors.InvalidArgument, match="subliminal_lists"):
        subliminal.lists(logs[""])


def test_a_teacher_without_a_trait_is_told_nothing(tmp_path):
    log = ran(subliminal.subliminal_lists(prompts=3), lambda _, __, system: str(len(system)), tmp_path)
    assert [answer for _, answer in subliminal.lists(log).rows] == ["0", "0", "0"]
