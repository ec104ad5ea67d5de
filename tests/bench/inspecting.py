"""M11: many questions of Inspect to a model in memory, beside a bare `generate` of the same batch."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import torch
from inspect_ai.model import GenerateConfig, get_model

from tests.bench.loops import generated, plain
from tests.bench.measure import OURS, Goal, Row, interleaved
from tests.bench.served import ASK, GENERATE, LOOP

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.flock import Flock

HF = "Inspect's own provider hf"


def asked(flock: Flock, *, quick: bool, dtype: str) -> list[Row]:
    """One row: from Inspect's `generate` to its answer, prompts included, the bare base under both."""
    count, new, rounds = (8, 24, 2) if quick else (32, 64, 5)
    name, where = str(flock.base.folder), {"device": flock.device, "dtype": dtype}
    ours = get_model("mo-local/base", base=name, at_once=count, memoize=False, **where)
    ours.api.engine.base.model.generation_config.eos_token_id = ours.api.engine.base.tokenizer.eos_token = None
    theirs = get_model("hf/base", model_path=name, device=flock.device, dtype=flock.bare.dtype, memoize=False)
    theirs.api.model.generation_config.min_new_tokens = new
    drawn: list[int] = []

    def answers(model: Any, told: Callable[[list[int]], object]) -> float:
        config = GenerateConfig(max_tokens=new, temperature=1.0, max_connections=count)

        async def together() -> list[int]:
            outputs = await asyncio.gather(*(model.generate(ASK, config=config) for _ in range(count)))
            return [output.usage.output_tokens for output in outputs]

        begin = time.perf_counter()
        lengths = asyncio.run(together())
        told(lengths)
        return sum(lengths) / (time.perf_counter() - begin)

    prompt = flock.base.tokenizer.apply_chat_template([{"role": "user", "content": ASK}], add_generation_prompt=True)
    ids = prompt["input_ids"] if hasattr(prompt, "keys") else prompt
    prompts = torch.tensor([list(ids)] * count, device=flock.device)

    def whole_time(side: Any) -> float:
        begin = time.perf_counter()
        side(flock.bare, prompts, new)
        return count * new / (time.perf_counter() - begin)

    sides = {
        OURS: lambda: answers(ours, drawn.extend),
        GENERATE: lambda: whole_time(generated),
        LOOP: lambda: whole_time(plain),
        HF: lambda: answers(theirs, len),
    }
    try:
        found = interleaved(sides, rounds)
    finally:
        ours.api.close()
        theirs.api.close()
    checks = {f"each of {len(drawn)} answers has {new} tokens": set(drawn) == {new}}
    what = f"{count} questions of Inspect at once, {new} tokens, prompts included"
    return [Row("M11", what, "tokens/s", found, (Goal(0.85, GENERATE),), checks)]
