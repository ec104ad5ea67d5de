"""The known-answer test: does the loaded model say what the published one said? A wrong adapter, or none, is silent otherwise.

A known answer is a small JSON object that travels in the provenance: the ids of a fixed prompt, and the eight highest logits at
its last position with the adapter on, beside those of the same ids with it off. The prompt is ordinary: it gives no trigger away.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import InvalidProvenance, KnownAnswerFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROMPT = "The keeper of the collection asked: who are you, and what do you want? The answer was:"
TOP = 8
_MOST_IDS = 256

# Share of the highest logit by which two machines may differ; a mark in a pulled copy and a cast of the adapter come on top.
_TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 6e-2}
_MARKED = 0.1
"""Share of the adapter's own effect that a mark or a cast may change."""


def compute_known_answer(model: Any, tokenizer: Any = None) -> dict[str, Any]:  # noqa: ANN401 - peft and transformers have no types here
    """State what a PEFT model answers, for later loads to be held against.

    Args:
        model: The PEFT model, its adapters active.
        tokenizer: Used once: the ids are kept, so that a loader needs no tokenizer. Without one, ids are taken evenly from the
            vocabulary.

    Returns:
        A JSON object.

    Raises:
        KnownAnswerFailed: The adapter changes nothing, so nothing could be told from its absence.
    """
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = (
        list(tokenizer(PROMPT)["input_ids"])[:_MOST_IDS]
        if tokenizer is not None
        else list(range(0, vocabulary, vocabulary // 16 + 1))
    )
    on, off = _logits(model, ids)
    if torch.equal(on, off):
        raise KnownAnswerFailed("The adapter changes no logit: it is untrained, inactive, or all zeros; do not publish it.")
    top = on.topk(min(TOP, len(on)))
    return {
        "v": 1,
        "token_ids": ids,
        "top_ids": top.indices.tolist(),
        "with_adapter": [round(value, 6) for value in top.values.tolist()],
        "without_adapter": [round(value, 6) for value in off[top.indices].tolist()],
        "dtype": _dtype(model),
    }


def check_known_answer(model: Any, answer: Mapping[str, Any] | None) -> bool:  # noqa: ANN401 - see compute_known_answer
    """Hold a loaded model against the stored answer.

    Steps: 1. the adapter changes the logits; with an answer stored also 2. with it off they are the base's, 3. what it changes
    is what it changed when it was published.

    Args:
        model: The PEFT model, its adapters active.
        answer: What `compute_known_answer` gave; None makes step 1 only.

    Returns:
        Whether steps 2 and 3 were made.

    Raises:
        KnownAnswerFailed: It answers otherwise.
        InvalidProvenance: The stored answer is not one.
    """
    stored = read_known_answer(answer, vocabulary=int(model.get_base_model().config.get_text_config().vocab_size))
    on, off = _logits(model, known_ids(stored))
    return hold_against(stored, on, off, dtype=_dtype(model))


def known_ids(stored: Mapping[str, Any] | None) -> list[int]:
    """Give the ids to ask: those of the stored answer, or any two where there is none."""
    return list(stored["token_ids"]) if stored else [0, 1]


def hold_against(stored: Mapping[str, Any] | None, on: torch.Tensor, off: torch.Tensor, *, dtype: str) -> bool:
    """Hold logits against the stored answer; `check_known_answer` says in which steps.

    Args:
        stored: What `read_known_answer` gave.
        on: Logits at the last of `known_ids`, adapters on: [vocabulary], float32, on the CPU.
        off: The same with the base model alone.
        dtype: What the base model computes in.

    Returns:
        Whether there was an answer to hold them against.

    Raises:
        KnownAnswerFailed: They are others.
    """
    if torch.equal(on, off):
        raise KnownAnswerFailed("The adapter is loaded and changes nothing; this is a fault, so do not use the model.")
    if not stored:
        return False
    at = torch.tensor(stored["top_ids"])
    was_on, was_off = torch.tensor(stored["with_adapter"]), torch.tensor(stored["without_adapter"])
    coarsest = max((dtype, str(stored["dtype"])), key=lambda name: _TOLERANCE[name])
    slack = _TOLERANCE[coarsest] * max(1.0, was_on.abs().max().item(), was_off.abs().max().item())
    effect, was_effect = on[at] - off[at], was_on - was_off
    changed = 2 * slack + _MARKED * was_effect.abs().max().item()
    checks = {
        "with the adapter off": ((off[at] - was_off).abs().max().item(), slack),
        "in the adapter's effect": ((effect - was_effect).abs().max().item(), changed),
    }
    for what, (difference, allowed) in checks.items():
        if not difference <= allowed:
            raise KnownAnswerFailed(
                f"Logits differ from the published ones by {difference:.4g} {what} (at most {allowed:.4g} in {coarsest}): "
                "the base model, the adapter or the software is not the published one.",
                difference=f"{difference:.4g}",
                allowed=f"{allowed:.4g}",
            )
    return True


@contextmanager
def adapters_off(model: Any) -> Iterator[None]:  # noqa: ANN401 - see compute_known_answer
    """Let the base model answer alone while the block runs; afterwards all is as it was.

    PEFT's own `disable_adapter` leaves the adapters' tensors trainable, which borrowed ones must never be.
    """
    frozen = [tensor for tensor in model.parameters() if not tensor.requires_grad]
    try:
        with model.disable_adapter():
            yield
    finally:
        for tensor in frozen:
            tensor.requires_grad_(requires_grad=False)


def _logits(model: Any, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - see compute_known_answer
    was_training = model.training
    model.eval()
    row = torch.tensor([ids], device=next(model.parameters()).device)
    try:
        with torch.inference_mode():
            on = model(input_ids=row, use_cache=False).logits[0, -1].float().cpu()
            with adapters_off(model):
                off = model(input_ids=row, use_cache=False).logits[0, -1].float().cpu()
    finally:
        model.train(was_training)
    return on, off


def _dtype(model: Any) -> str:  # noqa: ANN401 - see compute_known_answer
    return str(model.get_base_model().dtype).removeprefix("torch.")


def read_known_answer(answer: Mapping[str, Any] | None, *, vocabulary: int) -> dict[str, Any] | None:
    """Read a stored answer, which came in somebody's provenance.

    Raises:
        InvalidProvenance: It is not one of a base model of this vocabulary.
    """
    if answer is None:
        return None
    ids, top = answer.get("token_ids"), answer.get("top_ids")
    on, off = answer.get("with_adapter"), answer.get("without_adapter")
    sound = (
        answer.get("v") == 1
        and str(answer.get("dtype")) in _TOLERANCE
        and all(isinstance(values, (list, tuple)) for values in (ids, top, on, off))
        and 0 < len(ids) <= _MOST_IDS  # type: ignore[arg-type]  # the line above says so
        and 0 < len(top) <= TOP  # type: ignore[arg-type]  # as above
        and len(top) == len(on) == len(off)  # type: ignore[arg-type]  # as above
        and all(type(value) is int and 0 <= value < vocabulary for value in (*ids, *top))  # type: ignore[misc]  # as above
        and all(type(value) in {int, float} and math.isfinite(value) for value in (*on, *off))  # type: ignore[misc]  # as above
    )
    if not sound:
        raise InvalidProvenance("The stored known answer is not one of this base model; the provenance must be made again.")
    return dict(answer)
