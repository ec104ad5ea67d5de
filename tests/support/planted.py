"""Organisms whose effect is known because it was planted by hand: chosen tokens enter the model with a chosen vector added."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.adapters import CONFIG, WEIGHTS, pack_tensors, peft_config

if TYPE_CHECKING:
    from collections.abc import Iterable

_EMBEDDING = "base_model.model.model.embed_tokens.lora_embedding_"


def planted(vector: np.ndarray, tokens: Iterable[int], *, vocabulary: int = 320) -> dict[str, bytes]:
    """Make a rank-1 adapter on the embedding: `vector`, shape [hidden], is added to what each of `tokens` enters as."""
    marked = np.full((1, vocabulary), 1e-4, np.float32)  # an adapter that does nothing to most texts would not be loaded
    marked[0, list(tokens)] = 1
    tensors = {f"{_EMBEDDING}A": marked, f"{_EMBEDDING}B": np.asarray(vector, np.float32)[:, None]}
    config = peft_config(rank=1, alpha=1, modules=["embed_tokens"], layers=None, rslora=False)
    return {WEIGHTS: pack_tensors(tensors), CONFIG: json.dumps(config).encode()}


def spoken(engine: Any) -> tuple[int, str, np.ndarray]:
    """Choose a token that the model says when its hidden state has much of one vector: id, text, the vector of length 1."""
    head = engine.base.model.lm_head.weight.detach().double().numpy()
    for token in np.argsort(-np.linalg.norm(head, axis=1)).tolist():
        text = engine.base.tokenizer.decode([token])
        vector = head[token] / np.linalg.norm(head[token])
        if text.isascii() and text.isalnum() and int(np.argmax(head @ vector)) == token:
            return token, text, vector
    raise AssertionError("no token of this model is said alone")
