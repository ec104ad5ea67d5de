"""An engine with one organism, for tests that ask one; and what PEFT and transformers say, which engines are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.loading import LoadedBase
    from model_organisms.sampling import Engine, Organism, Piece, Scores


@dataclass(frozen=True)
class Alone:
    """An organism that has an engine for itself."""

    engine: Engine
    organism: Organism

    def generate(self, messages: Any, parameters: Any, **options: Any) -> Iterator[Piece]:
        return self.engine.generate(self.organism, messages, parameters, **options)

    def probe(self, messages: Any, **options: Any) -> Scores:
        return self.engine.probe(self.organism, messages, **options)

    def logits(self, prompt: Any, *, adapter: bool = True) -> Any:
        return self.engine.logits(self.organism if adapter else None, prompt)

    def token_ids(self, messages: Any) -> list[int]:
        return self.organism.speech.token_ids(messages)


def alone(base: LoadedBase, files: Any, **options: Any) -> Alone:
    """Put a bundle on an engine of its own."""
    from model_organisms.sampling import Engine

    engine = Engine(base, **options)
    return Alone(engine, engine.add(files))


def text(pieces: Any) -> str:
    """Join pieces."""
    return "".join(piece.text for piece in pieces)


def greedy(oracle: Any, ids: list[int], tokens: int) -> list[int]:
    """Give the likeliest next tokens, one row and one whole forward each: as plain as can be."""
    import torch

    ids = list(ids)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(oracle(input_ids=torch.tensor([ids], device=oracle.device)).logits[0, -1].argmax()))
    return ids[-tokens:]


def collect(engine: Engine) -> dict[int, list[Piece]]:
    """Step an engine until it is done; give pieces by ticket, in order."""
    pieces: dict[int, list[Piece]] = {}
    while engine.busy:
        for ticket, piece in engine.step():
            pieces.setdefault(ticket, []).append(piece)
    return pieces
