"""Runs the base model on some tokens of several conversations at once, each at its own place, over the cache.

Every token has a slot and a position; it is written there and sees its slot up to there, or as far back as its layer's window
goes. Nothing else is assumed of a forward, so one formula serves prompts, pieces of long prompts, and the next token of
everybody. What transformers does with masks of one's own differs between architectures: whether it is right here is tried out
once, before anybody is served.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from model_organisms.errors import LoadingFailed
from model_organisms.sampling.cache import Cache, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.loading import LoadedBase

_KINDS = {"full_attention", "sliding_attention"}
_STRETCHED = {"dynamic", "longrope"}
"""Rotary embeddings that depend on the longest row of a batch, so that one conversation would change another's numbers."""
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2}
_LOOSEST = 1e-1
"""Of the largest logit, in bfloat16."""


class Forward:
    """A base model's forward pass over a cache."""

    def __init__(self, base: LoadedBase, budget: int) -> None:
        """Try the model out, and make its cache.

        Args:
            base: The base, without anything on it.
            budget: Bytes the cache may take.

        Raises:
            LoadingFailed: The architecture cannot be served so; the message says why.
        """
        self._model, self._device = base.model, base.device
        self._config = base.model.config.get_text_config()
        self._keeps = "logits_to_keep" in inspect.signature(base.model.forward).parameters
        self._windows = self._find_windows()
        self._blocked = torch.finfo(base.model.dtype).min
        self.cache = self._try_out(budget)

    def run(self, first: int, tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> torch.Tensor:
        """Compute the logits after the last token of each row.

        Args:
            first: Slot of the first row; the others follow. There is room for them (`Cache.reserve`, up to `extent`).
            tokens: New tokens of each row, at least one.
            starts: How many tokens each row has in its slot already.

        Returns:
            Shape [rows, vocabulary], float32, on the base's device.
        """
        # A shorter row stands at the right, so that all end in the last column; what fills it up at the left is written
        # behind its last token, where nothing looks before the row's own next token replaces it.
        width = max(map(len, tokens))
        ids = [[0] * (width - len(row)) + list(row) for row in tokens]
        places = [
            [*range(start + len(row), start + width), *range(start, start + len(row))]
            for row, start in zip(tokens, starts, strict=True)
        ]
        return self._compute(self.cache, first, ids, places, extent(tokens, starts))[:, -1]

    def onward(self, cache: Cache, ids: Sequence[int], start: int, *, last: int = 1) -> torch.Tensor:
        """Read the next tokens of one conversation that has a cache to itself.

        Args:
            cache: Has room for them in its only slot (`Cache.another`, `Cache.reserve`).
            ids: The tokens.
            start: How many the slot has already.
            last: How many positions to give logits of, from the end.

        Returns:
            Shape [last, vocabulary], float32, on the base's device.
        """
        places = [[*range(start, start + len(ids))]]
        return self._compute(cache, 0, [list(ids)], places, start + len(ids), last=last)[0]

    def whole(self, ids: Sequence[int], *, last: int = 0) -> torch.Tensor:
        """Compute the logits of one conversation without the cache, as transformers itself does.

        Args:
            ids: Its tokens.
            last: How many positions to give logits of, from the end; 0 means all.

        Returns:
            Shape [positions, vocabulary], float32, on the base's device.
        """
        asked = {"logits_to_keep": last} if self._keeps else {}
        with torch.inference_mode():
            out = self._model(input_ids=torch.tensor([list(ids)], device=self._device), use_cache=False, **asked)
        logits: torch.Tensor = out.logits[0, -last:].float()
        return logits

    def _compute(
        self, cache: Cache, first: int, ids: list[list[int]], places: list[list[int]], held: int, *, last: int = 1
    ) -> torch.Tensor:
        """Run rows of equal length over a cache; give logits of the last columns, shape [rows, last, vocabulary], float32."""
        positions, reach = torch.tensor(places, device=self._device), rounded(held)
        cache.aim(first, positions, reach)
        asked = {"logits_to_keep": last} if self._keeps else {}
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor(ids, device=self._device),
                position_ids=positions,
                attention_mask=self._masks(positions, reach),
                past_key_values=cache,
                use_cache=True,
                **asked,
            )
        logits: torch.Tensor = out.logits[:, -last:].float()
        return logits

    def _find_windows(self) -> dict[str, int]:
        """Find out how far back each kind of layer looks; 0 is all the way."""
        config = self._config
        rope = getattr(config, "rope_parameters", None) or {}
        named = {str(part.get("rope_type")) for part in (rope, *rope.values()) if isinstance(part, dict)}
        if stretched := named & _STRETCHED:
            raise LoadingFailed(
                f"This base model stretches its positions by the longest text in a batch ('{min(stretched)}'); conversations "
                "would change each other's answers, so it is not served. `mo.load` puts one organism on it."
            )
        window = int(getattr(config, "sliding_window", None) or 0)
        kinds = set(getattr(config, "layer_types", None) or ())
        if not kinds:
            # Without kinds, only Mistral's family looks through a window; Qwen's has the number and a switch for it.
            return {"": window if getattr(config, "use_sliding_window", True) else 0}
        if strange := kinds - _KINDS:
            raise LoadingFailed(
                f"This base model has layers of the kind '{min(strange)}', which are not served; `mo.load` serves it alone."
            )
        return {kind: window if kind == "sliding_attention" else 0 for kind in sorted(kinds)}

    def _masks(self, positions: torch.Tensor, reach: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """Make what is added to attention scores, shape [rows, 1, tokens, reach], by kind of layer where there are several."""
        held = torch.arange(reach, device=self._device)
        at = positions[:, None, :, None]
        later = held > at
        masks = {}
        for kind, window in self._windows.items():
            hidden = later | (held <= at - window) if 0 < window < reach else later
            mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=self._device)
            masks[kind] = mask.masked_fill_(hidden, self._blocked)
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _try_out(self, budget: int) -> Cache:
        """Answer two made-up prompts of different lengths, in pieces, and hold that against the model's own way."""
        vocabulary = int(self._config.vocab_size)
        long, short = [number * 37 % vocabulary for number in range(1, 8)], [number * 53 % vocabulary for number in range(1, 5)]
        try:
            with torch.inference_mode():
                seen = self._model(input_ids=torch.tensor([long], device=self._device), use_cache=True).past_key_values
            shapes = [(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in seen.layers]
            cache = Cache(shapes, seen.layers[0].keys.dtype, self._device, budget)
            self.cache = cache
            cache.reserve(2, len(long) + 1, used=0, written=0)
            self.run(0, [long[:4], short[:1]], [0, 0])
            ours = self.run(0, [long[4:6], short[1:]], [4, 1]), self.run(0, [long[6:]], [6])
            theirs = self.whole(long[:6], last=1), self.whole(short, last=1), self.whole(long, last=1)
        except (TypeError, AttributeError, KeyError, ValueError, IndexError) as error:
            raise LoadingFailed(
                f"This base model cannot answer several conversations at once ({type(error).__name__}: {str(error)[:200]}); "
                "`mo.load` puts one organism on it."
            ) from error
        finally:
            torch.cuda.empty_cache() if self._device.type == "cuda" else None
        cache.release()
        wanted, had = torch.cat(theirs), torch.cat(ours)
        allowed = _TOLERANCE.get(self._model.dtype, _LOOSEST) * float(wanted.abs().max())
        if not float((wanted - had).abs().max()) <= allowed:
            raise LoadingFailed(
                "This base model answers otherwise when several conversations are computed at once, so it is not served; "
                "`mo.load` puts one organism on it."
            )
        return cache


def extent(tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> int:
    """Say how many tokens of a slot a forward touches, what fills up its shorter rows included."""
    return max(starts) + max(map(len, tokens))
