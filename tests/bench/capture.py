"""M10: every row's hidden states after every layer, read while many organisms decode in one batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from model_organisms.sampling import Engine
from model_organisms.sampling.mixing import Mix

from tests.bench.flock import EVERY
from tests.bench.measure import OURS, Goal, Row, interleaved

if TYPE_CHECKING:
    from model_organisms.sampling.steering import Interventions

    from tests.bench.flock import Flock

NONE, STATES = "nothing read", "output_hidden_states"
RANK = 8


def captured(flock: Flock, *, quick: bool) -> list[Row]:
    """Thirty-two organisms; a second of steps a round."""
    from model_organisms.sampling.steering import Interventions, Touch

    count, new, rounds = (8, 8, 3) if quick else (32, 12, 7)
    runs = Engine(flock.base, rows=count)
    organisms = [runs.add(flock.files(RANK, EVERY, number)) for number in range(count)]
    hooks = Interventions(flock.base.model)
    layers = tuple(range(flock.base.model.config.num_hidden_layers))
    prompts, mixes = flock.prompts(count), [Mix(one) for one in organisms]
    last: dict[str, torch.Tensor] = {}

    def decode(name: str, *, hooked: bool = False, states: bool = False) -> float:
        runs.mixer.compose(mixes)
        hooks.compose([Touch(read=layers)] * count if hooked else [])
        begin = 0.0
        with torch.inference_mode():
            out = flock.base.model(input_ids=prompts, use_cache=True, logits_to_keep=1, output_hidden_states=states)
            for step in range(new):
                if step == 1:
                    begin = time.perf_counter()
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = flock.base.model(
                    input_ids=token,
                    past_key_values=out.past_key_values,
                    use_cache=True,
                    logits_to_keep=1,
                    output_hidden_states=states,
                )
                if hooked:  # after the last layer the library's list has the normed state: compare one before
                    last[name] = _read(hooks, layers[-2])
                elif states:
                    last[name] = out.hidden_states[-2][:, -1].float().cpu()
            float(out.logits.sum())
        took = time.perf_counter() - begin
        hooks.compose([])
        runs.mixer.compose([])
        return count * (new - 1) / took

    sides = {
        OURS: lambda: decode(OURS, hooked=True),
        NONE: lambda: decode(NONE),
        STATES: lambda: decode(STATES, states=True),
    }
    found = interleaved(sides, rounds)
    runs.mixer.close()
    bound = 1e-5 if flock.base.dtype == "float32" else 0.1
    close = bool((last[OURS] - last[STATES]).abs().max() <= bound * last[STATES].abs().max())
    what = f"{count} organisms of rank {RANK} on every linear layer, hidden states after all {len(layers)} layers read"
    return [Row("M10", what, "tokens/s", found, (Goal(1 / 1.03, NONE),), {"the library's own states": close})]


def _read(hooks: Interventions, layer: int) -> torch.Tensor:
    """Last position of every row after a layer; shape [rows, hidden], float32."""
    rows = 1 + max(row for row, _ in hooks.read)
    return torch.stack([hooks.read[row, layer][-1] for row in range(rows)]).float().cpu()
