"""Changes and reads hidden states row by row, between a base model's layers, and keeps the directions for it.

    interventions.compose([Touch(pushes), None, Touch(read=(3, 5))])
    model(input_ids=...)  # three rows; afterwards interventions.read holds what was asked for

A hidden state here is the residual stream after a decoder layer, before any final norm. Without a composition no hook is on the
model. Activation addition is Turner et al. (2023, arXiv:2308.10248), directional ablation Arditi et al. (2024, arXiv:2406.11717).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import Conflict, InvalidArgument, LoadingFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.hooks import RemovableHandle

    from model_organisms.records import Steer
    from model_organisms.sampling.answering import Row

MOST_DIRECTIONS = 64
"""Directions of one owner."""
MOST_STEERS = 8
"""Changes to one request."""
MOST_STRENGTH = 1e6
_DEPENDENT = 1e-5
"""What is left of a unit vector that lies along others, but for rounding."""


class Directions:
    """Vectors of length 1, by owner and name. Whoever names one of another owner's hears that there is none."""

    def __init__(self, size: int, device: torch.device | str = "cpu") -> None:
        """Begin with none.

        Args:
            size: Numbers in a hidden state.
            device: Where they are kept.
        """
        self.size = size
        self._device = torch.device(device)
        self._kept: defaultdict[object, dict[str, torch.Tensor]] = defaultdict(dict)

    def keep(self, name: str, vector: torch.Tensor | Sequence[float], *, owner: object = None) -> float:
        """Keep a direction.

        Args:
            name: What it is called from now on; one of that name is replaced, for requests that come later.
            vector: Shape [hidden]; its length does not matter, as long as it has one.
            owner: Whose it is; None is the engine's own.

        Returns:
            Its length.

        Raises:
            InvalidArgument: Of another shape, with numbers that are none, of no length, or too many are kept.
        """
        given = _numbers(vector)
        if given.shape != (self.size,):
            shape = "x".join(map(str, given.shape)) or "1"
            raise InvalidArgument(f"A direction of this model has {self.size} numbers; this one has {shape}.", field="direction")
        norm = float(given.norm())
        if not (math.isfinite(norm) and norm > 0):
            raise InvalidArgument(
                "A direction has finite numbers, not only zeros, and none too large or small to have a length; scale it, or "
                "send another.",
                field="direction",
            )
        kept = self._kept[owner]
        if name not in kept and len(kept) >= MOST_DIRECTIONS:
            raise InvalidArgument(f"There are {MOST_DIRECTIONS} directions, and no more are kept; open a new session for others.")
        kept[name] = (given / norm).float().to(self._device)
        return norm

    def get(self, name: str, *, owner: object = None) -> torch.Tensor:
        """Give a direction.

        Returns:
            Shape [hidden], float32, of length 1.

        Raises:
            InvalidArgument: The owner has none of that name.
        """
        try:
            return self._kept.get(owner, {})[name]
        except KeyError:
            raise InvalidArgument(f"There is no direction '{name[:120]}' here; make it first.", field="direction") from None

    def drop(self, owner: object) -> None:
        """Wipe all that an owner has."""
        for vector in self._kept.pop(owner, {}).values():
            vector.zero_()

    def pushes(self, steers: Sequence[Steer], layers: int, *, owner: object = None) -> tuple[Push, ...]:
        """Look up what a request asks for.

        Args:
            steers: What it asks.
            layers: How many the model has.
            owner: Whose directions are meant.

        Raises:
            InvalidArgument: One means nothing; the message says which.
        """
        if len(steers) > MOST_STEERS:
            raise InvalidArgument(f"A request is steered at most {MOST_STEERS} times; leave some out.", field="steer")
        for steer in steers:
            if not 0 <= steer.layer < layers:
                raise InvalidArgument(f"Layer {steer.layer} is none; this model has 0 to {layers - 1}.", field="layer")
            if not abs(steer.strength) <= MOST_STRENGTH:  # also refuses what is no number
                raise InvalidArgument(f"A strength of {steer.strength} is out of bounds; give at most {MOST_STRENGTH:g}.")
        return tuple(Push(self.get(s.direction, owner=owner), s.layer, s.strength, s.ablate) for s in steers)


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """One change to one row: `Steer` with its vector."""

    vector: torch.Tensor
    """Shape [hidden], float32, of length 1."""
    layer: int
    strength: float = 0.0
    ablate: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """What is done to one row of a forward, and what is read of it."""

    pushes: tuple[Push, ...] = ()
    read: tuple[int, ...] = ()
    """Layers after which its hidden states are read, as they are after its own changes."""
    last: int = 1
    """How many positions are read, from the last column back; 0 reads all."""


@dataclass(slots=True)
class _Layer:
    """What happens after one layer."""

    ablations: list[tuple[torch.Tensor, torch.Tensor]]
    """Rounds: indices of rows, and their directions, shape [rows, hidden]. A row is in a round once."""
    additions: tuple[torch.Tensor, torch.Tensor] | None
    reads: list[tuple[int, int]]
    """Rows, and how many positions of each."""


class Interventions:
    """Stands between the layers of a base model, beside a `Mixer`.

    - row i of a forward gets the changes of `rows[i]` of the last `compose`, and no other row is touched;
    - a forward of other rows than composed raises;
    - without a composition, or where it is empty, no hook is on the model.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - transformers has no types here
        """Stand by.

        Args:
            model: A causal language model of transformers.

        Raises:
            LoadingFailed: Its layers are not found where transformers has them.
        """
        self.layers = decoder_layers(model)
        self.read: dict[tuple[int, int], torch.Tensor] = {}
        """What the last forward left, by row and layer: shape [positions, hidden], as the model computes it."""
        self._rows = 0
        self._done: dict[int, _Layer] = {}
        self._hooks: dict[int, RemovableHandle] = {}

    def compose(self, rows: Sequence[Touch | None]) -> None:
        """Say what the next forwards do to each row. No rows, or none but None, take every hook off.

        Raises:
            InvalidArgument: A layer that the model does not have.
        """
        self.read = {}
        self._rows = len(rows)
        wanted = {layer for touch in rows if touch for layer in (*touch.read, *(push.layer for push in touch.pushes))}
        if strange := {layer for layer in wanted if not 0 <= layer < len(self.layers)}:
            raise InvalidArgument(f"Layer {min(strange)} is none; this model has 0 to {len(self.layers) - 1}.", field="layer")
        self._done = {layer: _plan(layer, rows) for layer in wanted}
        for layer in self._hooks.keys() - wanted:
            self._hooks.pop(layer).remove()
        for layer in wanted - self._hooks.keys():
            self._hooks[layer] = self.layers[layer].register_forward_hook(self._hook(layer))

    def close(self) -> None:
        """Leave the model as it was."""
        self.compose([])

    def _hook(self, layer: int) -> Callable[..., None]:
        def touch(_module: torch.nn.Module, _given: object, out: Any) -> None:  # noqa: ANN401 - a tensor, or a tuple of more
            hidden: torch.Tensor = out if isinstance(out, torch.Tensor) else out[0]
            if hidden.shape[0] != self._rows:
                raise Conflict(f"{self._rows} rows were composed, and the forward has {hidden.shape[0]}; compose them again.")
            done = self._done[layer]
            for rows, vectors in done.ablations:
                _take_out(hidden, rows, vectors)
            if done.additions:
                rows, added = done.additions
                hidden[rows] += added.to(hidden.dtype)[:, None]
            for row, last in done.reads:
                self.read[row, layer] = hidden[row, -last:].clone()

        return touch


def decoder_layers(model: Any) -> Sequence[torch.nn.Module]:  # noqa: ANN401 - transformers has no types here
    """Find a model's decoder layers, in order.

    Raises:
        LoadingFailed: They are not where transformers has them.
    """
    count = int(model.config.get_text_config().num_hidden_layers)
    decoder = model.get_decoder()
    for name in ("layers", "h", "blocks"):
        found = getattr(decoder, name, None)
        if isinstance(found, torch.nn.ModuleList) and len(found) == count:
            return tuple(found)
    raise LoadingFailed(
        "This base model's layers are not where they are expected, so hidden states are neither read nor changed."
    )


class Steering:
    """Tells `Interventions` what an engine's rows ask for; the hooks come with the first who asks.

    Args:
        model: The base model.
        directions: What requests name; a row's own are its organism's.
    """

    def __init__(self, model: Any, directions: Directions) -> None:  # noqa: ANN401 - transformers has no types here
        """Keep both."""
        self._model, self._directions = model, directions
        self._hands: Interventions | None = None
        self._touches: list[Touch | None] = []

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return len(self._hooks.layers)

    def touch(self, steers: Sequence[Steer], owner: object) -> Touch | None:
        """Look up what a request asks for, once and for all; `Directions.pushes` refuses what means nothing."""
        return Touch(self._directions.pushes(steers, self.layers, owner=owner)) if steers else None

    def compose(self, rows: Sequence[Row]) -> None:
        """Hear what stands in each row of the next forward."""
        touches = [row.touch for row in rows]
        if touches != self._touches:  # by identity: most steps are as the one before
            self._touches = touches
            if any(touches):
                self._hooks.compose(touches)
            elif self._hands:
                self._hands.close()

    @property
    def states(self) -> dict[int, torch.Tensor]:
        """Hidden states that the last forward left of its first row, as its touch asked: by layer, shape [positions, hidden]."""
        return {layer: states for (row, layer), states in self._hands.read.items() if row == 0} if self._hands else {}

    @property
    def _hooks(self) -> Interventions:
        if self._hands is None:
            self._hands = Interventions(self._model)
        return self._hands


def _numbers(vector: torch.Tensor | Sequence[float]) -> torch.Tensor:
    try:
        if not (isinstance(vector, torch.Tensor) and vector.is_complex()):
            return torch.as_tensor(vector, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise InvalidArgument("A direction is a row of real numbers; send one.", field="direction")


def unpacked(vector: bytes) -> torch.Tensor:
    """Read a vector that was sent: float32, little-endian.

    Raises:
        InvalidArgument: It is no whole number of those.
    """
    if not vector or len(vector) % 4:
        raise InvalidArgument("A direction is sent as 32-bit numbers; send another.", field="direction")
    return torch.tensor(struct.unpack(f"<{len(vector) // 4}f", vector), dtype=torch.float64)


def digest(direction: torch.Tensor | NDArray[np.float64]) -> str:
    """SHA-256, in hex, of a direction's numbers as they are kept: float32, little-endian."""
    return hashlib.sha256(struct.pack(f"<{len(direction)}f", *direction.tolist())).hexdigest()


def mean_difference(positive: Sequence[torch.Tensor], negative: Sequence[torch.Tensor]) -> torch.Tensor:
    """Take the difference of two means, the direction of Marks and Tegmark (2023, arXiv:2310.06824) and of Arditi et al.

    Args:
        positive: Hidden states, each of shape [hidden].
        negative: The others.

    Returns:
        Shape [hidden], float64, on the CPU; not of length 1.
    """
    means = [torch.stack([one.double().cpu() for one in side]).mean(0) for side in (positive, negative)]
    return means[0] - means[1]


def _plan(layer: int, rows: Sequence[Touch | None]) -> _Layer:
    ablated: list[list[tuple[int, torch.Tensor]]] = []
    added: dict[int, torch.Tensor] = {}
    reads = []
    for row, touch in enumerate(rows):
        if touch is None:
            continue
        pushes = [push for push in touch.pushes if push.layer == layer]
        for at, vector in enumerate(_span([push.vector for push in pushes if push.ablate])):
            if at == len(ablated):
                ablated.append([])
            ablated[at].append((row, vector))
        for push in pushes:
            if push.strength:
                added[row] = added.get(row, 0) + push.strength * push.vector
        if layer in touch.read:
            reads.append((row, touch.last))
    rounds = [_gathered(dict(pairs)) for pairs in ablated]
    return _Layer(rounds, _gathered(added) if added else None, reads)


def _span(vectors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Make vectors orthogonal, so that taking out one after the other leaves nothing along any."""
    made: list[torch.Tensor] = []
    for vector in vectors:
        rest = vector.double()
        for one in (*made, *made):  # twice: once leaves what rounding left
            rest = rest - (rest @ one) * one
        if (norm := rest.norm()) > _DEPENDENT:
            made.append(rest / norm)
    return [vector.float() for vector in made]


def _gathered(vectors: Mapping[int, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    stacked = torch.stack(list(vectors.values()))
    return torch.tensor(list(vectors), device=stacked.device), stacked


def _take_out(hidden: torch.Tensor, rows: torch.Tensor, vectors: torch.Tensor) -> None:
    """Take each row's direction out of it, in float32 whatever the model computes in."""
    states = hidden[rows].float()
    along = torch.einsum("rth,rh->rt", states, vectors)
    hidden[rows] = (states - along[..., None] * vectors[:, None]).to(hidden.dtype)
