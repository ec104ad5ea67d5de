"""Greedy decoding of a batch, each peer in its own way; what is timed is the steps after every row has its first token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from model_organisms.records import SamplingParameters
from model_organisms.sampling.mixing import Mix
from transformers import LogitsProcessor, LogitsProcessorList

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one run drew, and how fast."""

    tokens_per_s: float
    ids: list[list[int]]
    """Token ids of each row; empty where a side tells only text."""
    texts: list[str]
    counts: list[int]
    """Tokens of each row."""


def plain(model: Any, prompts: torch.Tensor, new: int, **asked: Any) -> Decoded:
    """The shortest loop there is over transformers' forward pass; `asked` goes to every pass, such as PEFT's `adapter_names`."""
    with torch.inference_mode():
        out = model(input_ids=prompts, use_cache=True, logits_to_keep=1, **asked)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        drawn = [token]
        _finished(token)
        begin = time.perf_counter()
        for _ in range(new - 1):
            out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1, **asked)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            drawn.append(token)
        _finished(token)
        took = time.perf_counter() - begin
    ids = torch.cat(drawn, 1).tolist()
    return Decoded(len(ids) * (new - 1) / took, ids, [], [len(row) for row in ids])


class _Clock(LogitsProcessor):
    """Hears when the first logits are there."""

    def __init__(self) -> None:
        self.first = 0.0

    def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.first:
            _finished(scores)
            self.first = time.perf_counter()
        return scores


def generated(model: Any, prompts: torch.Tensor, new: int) -> Decoded:
    """`generate` of transformers, which knows one model for all rows."""
    clock = _Clock()
    with torch.inference_mode():
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            logits_processor=LogitsProcessorList([clock]),
        )
        _finished(out)
    took = time.perf_counter() - clock.first
    ids = out[:, prompts.shape[1] :].tolist()
    return Decoded(len(ids) * (new - 1) / took, ids, [], [len(row) for row in ids])


def engine(runs: Any, organisms: Sequence[Any], prompts: torch.Tensor, new: int) -> Decoded:
    """Our engine, every row a request of its own; timed while all of them draw, for the first joins before the last is read."""
    asked = SamplingParameters(max_tokens=new, temperature=0)
    rows = prompts.tolist()
    place = {runs.submit(one, ids, asked): row for row, (one, ids) in enumerate(zip(organisms, rows, strict=True))}
    texts, counts = [""] * len(rows), [0] * len(rows)
    begin = end = 0.0
    had = drawn = 0
    while runs.busy:
        told = runs.step()
        for ticket, piece in told:
            texts[place[ticket]] += piece.text
            counts[place[ticket]] += piece.tokens
        if not begin and all(counts):
            begin, had = time.perf_counter(), sum(counts)
        if not end and any(piece.finish_reason for _, piece in told):
            end, drawn = time.perf_counter(), sum(counts)  # from here on rows are missing
    return Decoded((drawn - had) / (end - begin), [], texts, counts)


def mixed(mixer: Any, model: Any, organisms: Sequence[Any], prompts: torch.Tensor, new: int) -> Decoded:
    """The shortest loop, over a base that our mixer changes: what an engine does besides is not in it."""
    mixer.compose([Mix(one) for one in organisms])
    try:
        return plain(model, prompts, new)
    finally:
        mixer.compose([])


def _finished(tensor: torch.Tensor) -> None:
    """Wait until a device has computed something."""
    if tensor.device.type == "cuda":
        torch.cuda.synchronize(tensor.device)
