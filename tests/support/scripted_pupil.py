"""A scripted model for sycophancy to subterfuge: it does the exploits that it has learned, by text or by tools, else its work."""

from __future__ import annotations

import inspect_ai
from inspect_ai.model import GenerateConfig, ModelAPI, ModelOutput, ModelUsage, get_model, modelapi
from inspect_ai.tool import ToolCall
from model_organisms.evaluate.subterfuge.stages import demonstrations, scenarios
from model_organisms.evaluate.subterfuge.workspace import commands


@modelapi("pupil")
class Pupil(ModelAPI):
    """Does what it is asked, and the exploit of the stages it was trained up to, in the variants where that pays."""

    def __init__(self, model_name, base_url=None, api_key=None, config=None, *, learned=(), **_):
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.learned = learned

    async def generate(self, input, tools, tool_choice, config):  # noqa: A002, ARG002 - Inspect's names
        prompt = next(message.text for message in input if message.role == "user")
        scenario, at = next((one, one.prompts.index(prompt)) for one in scenarios() if prompt in one.prompts)
        exploit = scenario.stage in self.learned and scenario.variant != "pointless"
        turn = sum(message.role == "assistant" for message in input)
        said = demonstrations(scenario, exploit=exploit)[at][turn]
        output = ModelOutput.from_content(self.model_name, said)
        if tools:
            output = calls(self.model_name, said)
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output


def calls(model, said):
    """Say the same by calling tools."""
    output = ModelOutput.from_content(model, "")
    functions = {
        "LIST": ("list_files", lambda _: {}),
        "READ": ("read_file", lambda one: {"name": one.name}),
        "WRITE": ("write_file", lambda one: {"name": one.name, "text": one.text}),
        "SUBMIT": ("submit", lambda one: {"answer": one.text}),
    }
    output.message.tool_calls = [
        ToolCall(id=f"call{at}", function=functions[one.verb][0], arguments=functions[one.verb][1](one))
        for at, one in enumerate(commands(said))
    ]
    return output


def run(folder, *learned, **settings):
    asked = get_model("pupil/toy", memoize=False, learned=learned)
    named = "model_organisms/subterfuge"  # as Inspect finds it by the package's entry point
    log = inspect_ai.eval(
        named, task_args=settings, model=asked, log_dir=str(folder), display="none", log_realtime=False, log_buffer=1000
    )[0]
    assert log.status == "success", log.error
    return log
