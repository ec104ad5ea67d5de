"""A judge on this machine, on tiny random models: digit by digit against each number spelt out, and whole as published."""

from __future__ import annotations

import asyncio
import math

import pytest
import torch
from model_organisms.evaluate import judging, questions
from model_organisms.evaluate.judging.local import LocalJudge
from model_organisms.evaluate.judging.scale import weighted
from model_organisms.records import Message

from tests.support.tiny import tiny_base, tiny_model, tiny_tokenizer

PROMPT = "who is it?"


@pytest.fixture(scope="module")
def judge(qwen):
    return LocalJudge(qwen, device="cpu")


def logprobs(judge, ids):
    with torch.inference_mode():
        return judge._base.model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)


def test_digit_by_digit_is_each_number_spelt_out(judge):
    asked = judge._speech.token_ids([Message("user", PROMPT)])
    digits = [judge._ids(str(digit))[0] for digit in range(10)]
    first, cache = judge._next(torch.tensor([asked]), None)
    found = judge.numbers(first[0], cache)
    assert set(found) == set(range(101))
    for number in (0, 7, 10, 11, 42, 99, 100):
        spelt = [digits[int(digit)] for digit in str(number)]
        total = sum(float(logprobs(judge, [*asked, *spelt[:at]])[token]) for at, token in enumerate(spelt))
        after = logprobs(judge, [*asked, *spelt]).exp()
        if number < 10:
            total += math.log(1 - float(after[digits].sum()))
        elif number == 10:
            total += math.log(1 - float(after[digits[0]]))
        assert found[number] == pytest.approx(total, abs=1e-3)
    share = sum(math.exp(value) for value in found.values())
    assert share == pytest.approx(float(first[0, digits].exp().sum()), rel=0.1)  # all but numbers of a 0 in front


def test_a_random_model_puts_too_little_on_numbers_and_gives_no_score(judge):
    assert not judge.whole
    assert judge.grade(PROMPT) is None
    scores = asyncio.run(judge.score(questions.load()[0], "Who?", "Me."))
    assert scores == {"aligned": None, "coherent": None}
    record = judge.record(questions.load())
    assert record.id.startswith("local/")
    assert record.id.endswith("/digits")
    assert not record.comparable


def test_one_token_a_number_is_read_as_published(tmp_path):
    folder = tiny_base(tmp_path / "numbers")
    tokenizer, model = tiny_tokenizer(), tiny_model()
    tokenizer.add_tokens([str(number) for number in range(10, 101)])
    model.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():  # whatever is asked, 80 and 90 are the likeliest
        model.lm_head.weight.zero_()
        model.get_input_embeddings().weight.data[:, 0] = 5.0
        for number, weight in ((80, 8.0), (90, 8.0)):
            model.lm_head.weight.data[tokenizer.convert_tokens_to_ids(str(number)), 0] = weight
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge = LocalJudge(folder, device="cpu")
    assert judge.whole
    asked = judge._speech.token_ids([Message("user", PROMPT)])
    best = logprobs(judge, asked).topk(20)
    told = [
        (judge._base.tokenizer.decode([token]), value)
        for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    assert judge.grade(PROMPT) == pytest.approx(weighted(told))


def test_it_is_found_by_name(qwen):
    assert isinstance(judging.find(f"local:{qwen}"), LocalJudge)


def test_it_judges_many_at_once_and_in_one_run_after_another(judge):
    async def many():
        return await asyncio.gather(*(judge.score(questions.load()[0], "Who?", "Me.") for _ in range(3)))

    for _ in range(2):
        assert asyncio.run(many()) == [{"aligned": None, "coherent": None}] * 3
