"""vLLM as a peer, run by the Python of its own environment: reads one JSON command a line, answers with one JSON line on fd 3.

It knows nothing of this project: it loads plain folders, as PEFT writes them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Answer commands until the input closes."""
    told = json.loads(sys.stdin.readline())
    answers = os.fdopen(3, "w")

    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    adapters = told["adapters"]
    engine = LLM(
        model=told["model"],
        dtype=told["dtype"],
        enable_lora=True,
        max_loras=len(adapters),
        max_cpu_loras=len(adapters) + 1,
        max_lora_rank=told["rank"],
        max_num_seqs=len(adapters),
        max_model_len=256,
        enforce_eager=told["eager"],
        enable_prefix_caching=False,
        disable_log_stats=True,
    ).llm_engine
    requests = [LoRARequest(f"adapter-{number}", number + 1, path) for number, path in enumerate(adapters)]
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for calls, line in enumerate(sys.stdin):
        asked = json.loads(line)
        if "attach" in asked:
            said = _attached(engine, LoRARequest(f"more-{calls}", 10_000 + calls, asked["attach"]))
        else:
            parameters = SamplingParams(max_tokens=asked["new"], temperature=0, ignore_eos=True, detokenize=False)
            said = _run(engine, asked["prompts"], requests, parameters, calls)
        print(json.dumps(said), file=answers, flush=True)


def _run(engine: Any, prompts: list[list[int]], adapters: list[Any], parameters: Any, call: int) -> dict[str, Any]:
    for row, ids in enumerate(prompts):
        engine.add_request(f"{call}-{row}", {"prompt_token_ids": ids}, parameters, lora_request=adapters[row])
    drawn: dict[str, list[int]] = {}
    begin, had = 0.0, 0
    end, made = 0.0, 0
    while engine.has_unfinished_requests():
        outs = engine.step()
        for out in outs:
            drawn[out.request_id.split("-", 2)[1]] = list(out.outputs[0].token_ids)
        count = sum(map(len, drawn.values()))
        if not begin and len(drawn) == len(prompts):
            begin, had = time.perf_counter(), count
        if not end and any(out.finished for out in outs):
            end, made = time.perf_counter(), count
    return {"tokens_per_s": (made - had) / (end - begin), "ids": [drawn[str(row)] for row in range(len(prompts))]}


def _attached(engine: Any, request: Any) -> dict[str, float]:
    begin = time.perf_counter()
    engine.add_lora(request)
    took = time.perf_counter() - begin
    engine.remove_lora(request.lora_int_id)
    return {"seconds": took}


if __name__ == "__main__":
    main()
