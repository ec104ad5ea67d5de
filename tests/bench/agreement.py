"""Whether many organisms in one batch said what each says alone: held against PEFT, and a row's own organism against the others.

Greedy text must be PEFT's to the last token. Where two tokens are as good as equal, arithmetic of another order may choose
the other one; that is no fault, so such a row is followed with its own tokens, and only a choice PEFT holds for clearly worse is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.loops import Decoded

TIE = {"float32": 2e-3}
"""Logits nearer than this are a tie; of half precision, far more."""
_TIE_HALF = 0.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the rows."""

    rows: int
    same: int
    ties: int
    told_apart: bool
    """Whether the organisms differ enough that rows which were mixed up would have been seen."""

    @property
    def right(self) -> bool:
        """Whether no row was another's, or wrong."""
        return self.same + self.ties == self.rows and self.told_apart

    def __str__(self) -> str:
        tied = f", {self.ties} of them after a tie" if self.ties else ""
        return f"{self.same + self.ties} of {self.rows} rows are PEFT's{tied}"


def verdict(
    ours: Decoded,
    worn: Any,
    prompts: torch.Tensor,
    names: Sequence[str],
    *,
    oracle: Sequence[list[int]],
    tokenizer: Any,
    dtype: str,
) -> Verdict:
    """Hold each row against PEFT's, and follow with PEFT those that differ.

    Args:
        ours: What was drawn, as token ids or text.
        worn: A model that wears all adapters (`flock.wear`).
        prompts: Shape [rows, tokens].
        names: PEFT's name of each row's adapter.
        oracle: What PEFT drew for each row.
        tokenizer: For sides that give text.
        dtype: What the models compute in.
    """
    bound = TIE.get(dtype, _TIE_HALF)
    drawn = ours.ids or [_as_ids(text, row, tokenizer) for text, row in zip(ours.texts, oracle, strict=True)]
    same = sum(mine == theirs for mine, theirs in zip(drawn, oracle, strict=True))
    ties = sum(
        _tied(worn, prompts[row : row + 1], mine, names[row], bound)
        for row, (mine, theirs) in enumerate(zip(drawn, oracle, strict=True))
        if mine != theirs
    )
    return Verdict(len(names), same, ties, len(names) == 1 or len({tuple(row) for row in oracle}) > 1 + len(names) // 4)


def _as_ids(text: str, expected: list[int], tokenizer: Any) -> list[int]:
    """Token ids of a text: the expected ones where they give it, else as the tokenizer reads it."""
    if tokenizer.decode(expected, skip_special_tokens=True).removesuffix("\ufffd") == text.removesuffix("\ufffd"):
        return expected
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _tied(worn: Any, prompt: torch.Tensor, drawn: list[int], name: str, bound: float) -> bool:
    """Whether every token that was drawn was PEFT's best after the ones before, but for a tie."""
    if not drawn:
        return False
    row = torch.cat([prompt, torch.tensor([drawn], device=prompt.device)], 1)
    with torch.inference_mode():
        logits = worn(input_ids=row, adapter_names=[name]).logits[0, prompt.shape[1] - 1 : -1].float()
    chosen = logits.gather(1, row[0, prompt.shape[1] :, None])[:, 0]
    return bool((logits.max(1).values - chosen).max() <= bound)
