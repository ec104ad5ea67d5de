"""Reads one conversation beside the batch, a chunk at a time, for numbers of it: logits and hidden states at its end.

A chunk is about as much work as a step of the batch. Between two, whoever drives the engine answers others, and hears of who
gives up. Where a conversation is cut depends on nothing but its length, so that the same question has the same numbers.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from model_organisms.errors import InvalidArgument, Unavailable
from model_organisms.sampling.answering import Row
from model_organisms.sampling.batch import NO_MEMORY, is_memory
from model_organisms.sampling.mixing import Mix
from model_organisms.sampling.steering import Touch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from model_organisms.sampling.bank import Organism
    from model_organisms.sampling.batch import Batch
    from model_organisms.sampling.cache import Cache
    from model_organisms.sampling.forward import Forward
    from model_organisms.sampling.steering import Push, Steering

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be seen at the last positions of a conversation."""

    logits: torch.Tensor
    """Shape [positions, vocabulary], float32, on the CPU."""
    states: dict[int, torch.Tensor]
    """Hidden states by layer, shape [positions, hidden], as the model computes them."""


class Reader:
    """Reads conversations for one engine.

    - between two chunks the base is bare, and the batch may step;
    - what a conversation left is wiped as its reading ends, however it ends.
    """

    def __init__(self, forward: Forward, batch: Batch, steering: Steering, *, chunk: int) -> None:
        """Take an engine's parts, and how many tokens are read at once."""
        self._forward, self._batch, self._steering, self._chunk = forward, batch, steering, chunk

    def read(
        self,
        organism: Organism | None,
        ids: Sequence[int],
        last: int,
        *,
        scale: float = 1.0,
        pushes: tuple[Push, ...] = (),
        layers: tuple[int, ...] = (),
    ) -> Generator[bool, None, Seen]:
        """Read one conversation.

        Args:
            organism: Whose row it is; None is the bare base.
            ids: Its tokens, at least one.
            last: How many positions to give, from the end; at least 1.
            scale: Dose of the organism.
            pushes: How its hidden states are changed.
            layers: After which they are read.

        Yields:
            True between two chunks: keys and values are held.

        Raises:
            InvalidArgument: Keys and values do not fit the cache, or a layer is not there.
            Conflict: The organism is not of this engine, or was removed meanwhile.
            Unavailable: The device has no memory left, or the organism does not fit beside those in use.
        """
        cache = self._room(len(ids)) if len(ids) > self._chunk else None
        seen = []
        try:
            for start in range(0, len(ids), self._chunk):
                if start:
                    yield True
                some = ids[start : start + self._chunk]
                wanted = max(0, min(len(some), last - (len(ids) - start - len(some))))  # of this chunk's positions
                touch = Touch(pushes, layers if wanted else (), wanted or 1) if pushes or layers else None
                row = Row(organism, None, 0, start, last=start + len(some) == len(ids), touch=touch)
                one = self._see(row, scale, some, wanted or 1, cache)
                seen += [one] if wanted else []
        finally:
            if cache is not None:  # an empty one counts as false
                cache.clear(0, len(ids))
        states = {layer: torch.cat([one.states[layer] for one in seen]) for layer in layers}
        return Seen(torch.cat([one.logits for one in seen]), states)

    def whole(self, organism: Organism | None, ids: Sequence[int], last: int, *, scale: float = 1.0) -> torch.Tensor:
        """Read one conversation at once; give logits as `Forward.whole` does, on the CPU.

        Raises:
            Conflict: The organism is not of this engine.
            Unavailable: As for `read`.
        """
        return self._see(Row(organism, None, 0, 0, last=True), scale, ids, last, None).logits

    def _room(self, tokens: int) -> Cache:
        cache = self._forward.cache.another()
        if not cache.fits(1, tokens):
            raise InvalidArgument(
                f"The prompt takes {tokens * cache.token_bytes:,} bytes of cache, and there are {cache.budget:,}; shorten it, or "
                "raise `cache_bytes`.",
                tokens=str(tokens),
            )
        with _memory():
            cache.reserve(1, tokens, used=0, written=0)
        return cache

    def _see(self, row: Row, scale: float, ids: Sequence[int], last: int, cache: Cache | None) -> Seen:
        try:
            with _memory():
                self._batch.compose([row], [None if row.organism is None else Mix(row.organism, scale)])
                if cache is None:
                    logits = self._forward.whole(ids, last=last)
                else:
                    logits = self._forward.onward(cache, ids, row.position, last=last)
                return Seen(logits.cpu(), self._steering.states)
        finally:
            self._batch.compose((), ())


@contextmanager
def _memory() -> Iterator[None]:
    """Say in words of ours that the device has no memory left."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory(error):
            raise
        raise Unavailable(NO_MEMORY) from error


def drained(steps: Generator[bool, None, T]) -> T:
    """Drive a reading to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            value: T = done.value
            return value
