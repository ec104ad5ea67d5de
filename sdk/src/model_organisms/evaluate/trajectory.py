"""Reads the path that an adapter takes while it is trained, and its geometry: norms, turns, principal components. Judges nothing.

Vectors are the raw factors A and B of all modules of a checkpoint, laid end to end, not scaled by alpha/r, as in Turner et al.
(2025, arXiv:2506.11613). What of a path is worth reporting: `phases.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from model_organisms.errors import InvalidArgument, InvalidBundle
from model_organisms.formats import adapter
from model_organisms.formats.paths import WEIGHTS, checkpoint_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from model_organisms.formats.tensors import Tensor

PAPER_THRESHOLD = 0.0035
"""Length that the larger leg of a local cosine must have, in the paper."""
CODE_THRESHOLD = 0.002
"""The same, in the code published with it."""
_NAME = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.\w+)?(?:\.weight)?", re.ASCII)
_FEWEST = 3
_AROUND = 2
"""Increments on either side that make a local mean."""


class Convention(StrEnum):
    """Which sign a path that goes straight on has."""

    STRAIGHT_NEGATIVE = "straight=-1"
    """The paper's: both legs are seen from the point between, so straight on is -1, a right angle 0, and a reversal +1."""
    STRAIGHT_POSITIVE = "straight=+1"
    """A tutorial's: the leg that arrives and the leg that leaves, so straight on is +1 and a reversal -1."""

    @property
    def sign(self) -> int:
        """What the paper's cosine is multiplied by."""
        return 1 if self is Convention.STRAIGHT_NEGATIVE else -1


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """The checkpoints of one training, in order of their steps."""

    steps: tuple[int, ...]
    factors: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    """By module: A, shape [checkpoints, rank, in], and B, shape [checkpoints, out, rank]."""

    @classmethod
    def of(cls, checkpoints: Iterable[tuple[int, Mapping[str, Any]]]) -> Trajectory:
        """Make one of any sequence of checkpoints.

        Args:
            checkpoints: Steps, and tensors by their names in PEFT; numpy's or torch's.

        Raises:
            InvalidArgument: Fewer than three, two of one step, or tensors that are not the same pairs throughout.
        """
        found = sorted(((step, _pairs(tensors)) for step, tensors in checkpoints), key=lambda one: one[0])
        steps = tuple(step for step, _ in found)
        if len(found) < _FEWEST or len(set(steps)) < len(steps):
            raise InvalidArgument(f"A path has at least {_FEWEST} checkpoints, each of a step of its own; this has {len(found)}.")
        shapes = {tuple((module, a.shape, b.shape) for module, (a, b) in sorted(pairs.items())) for _, pairs in found}
        if len(shapes) > 1:
            raise InvalidArgument("The checkpoints do not have the same modules and ranks; give those of one training.")
        modules = sorted(found[0][1])
        return cls(
            steps,
            {
                module: (np.stack([p[module][0] for _, p in found]), np.stack([p[module][1] for _, p in found]))
                for module in modules
            },
        )

    @property
    def spacing(self) -> int:
        """Steps from one checkpoint to the next, where that is usual."""
        return int(np.median(np.diff(self.steps)))

    def vectors(self, matrix: str) -> NDArray[np.float64]:
        """Lay a factor of all modules end to end.

        Args:
            matrix: `a` or `b`.

        Returns:
            Shape [checkpoints, values].
        """
        which = {"a": 0, "b": 1}[matrix]
        return np.concatenate([pair[which].reshape(len(self.steps), -1) for pair in self.factors.values()], axis=1)


def read(files: Mapping[str, bytes | memoryview]) -> Trajectory:
    """Read the training checkpoints of a bundle.

    Args:
        files: The bundle, contents by path; what is not under `checkpoints/` is passed over.

    Raises:
        InvalidBundle: It has fewer than three, or one lacks a file.
        MalformedTensors: A file of weights is none.
        InvalidArgument: They are not of one training.
    """
    folders = checkpoint_folders(files)
    if len(folders) < _FEWEST:
        raise InvalidBundle(
            f"The bundle has {len(folders)} training checkpoints, and a path takes {_FEWEST}; "
            "train with `mo.record(..., checkpoint_every=5)`."
        )
    return Trajectory.of(_checkpoints(files, folders))


def compact(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a path in as few dimensions as it has checkpoints: lengths and angles stay, and what looks at those alone is quick.

    Args:
        vectors: Shape [checkpoints, values].

    Returns:
        Shape [checkpoints, at most checkpoints].
    """
    if vectors.shape[1] <= vectors.shape[0]:
        return vectors
    _, turned = np.linalg.qr(vectors.T)
    return turned.T


def local_cosines(
    vectors: NDArray[np.float64],
    steps: Sequence[int],
    k: int,
    *,
    threshold: float = PAPER_THRESHOLD,
    convention: Convention = Convention.STRAIGHT_NEGATIVE,
) -> dict[int, float]:
    """Give cos(v[t-k] - v[t], v[t+k] - v[t]) along a path (Turner et al. 2025, arXiv:2506.11613).

    Args:
        vectors: Shape [checkpoints, values].
        steps: Training steps of the checkpoints.
        k: How far the legs reach, in training steps; where no checkpoint lies exactly so far, there is no cosine.
        threshold: Where the larger leg is shorter, there is none either: noise turns a path that hardly moves.
        convention: The sign.

    Returns:
        By training step, in order.
    """
    place = {step: at for at, step in enumerate(steps)}
    found = {}
    for step, at in place.items():
        if step - k not in place or step + k not in place:
            continue
        back, ahead = vectors[place[step - k]] - vectors[at], vectors[place[step + k]] - vectors[at]
        legs = float(np.linalg.norm(back)), float(np.linalg.norm(ahead))
        if max(legs) >= threshold and min(legs) > 0:
            found[step] = convention.sign * min(1.0, max(-1.0, float(back @ ahead) / (legs[0] * legs[1])))
    return found


def furthest(cosines: Mapping[int, float], convention: Convention) -> tuple[int, float] | None:
    """Find where a path turns most: the step and its cosine; the earlier of two alike, and none of none."""
    return max(cosines.items(), key=lambda one: (convention.sign * one[1], -one[0]), default=None)


def principal(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give a path in the plane of its two principal components.

    Args:
        vectors: Shape [checkpoints, values].

    Returns:
        Shape [checkpoints, 2]; zeros where the path does not move.
    """
    from sklearn.decomposition import PCA

    if not np.ptp(vectors, axis=0).any():
        return np.zeros((len(vectors), 2))
    count = min(2, *vectors.shape)
    plane: NDArray[np.float64] = PCA(n_components=count, svd_solver="full").fit_transform(vectors)
    return np.pad(plane, ((0, 0), (0, 2 - count)))


def comp_scores(trajectory: Trajectory, *, demean: bool = True) -> NDArray[np.float64]:
    """Compare each checkpoint's B with the last one's: ||B(t)' B(end)|| / (||B(t)|| ||B(end)||), in Frobenius norms.

    It is the "comp score" of the code published with arXiv:2506.11613, a dot product between sets of vectors. Vectors are
    columns here, so one vector gives |cosine|. That code lays them in rows, and there one vector gives 1 whatever it is. Of
    several modules, squares are summed.

    Args:
        trajectory: The path.
        demean: Take the mean over checkpoints off first, as that code does.

    Returns:
        Shape [checkpoints], 0 to 1; 0 where a B is zero.
    """
    shared, own = np.zeros(len(trajectory.steps)), np.zeros(len(trajectory.steps))
    for _, factor in trajectory.factors.values():
        moved = factor - factor.mean(0) if demean else factor
        shared += (np.einsum("tor,os->trs", moved, moved[-1]) ** 2).sum((1, 2))
        own += (moved**2).sum((1, 2))
    scale = np.sqrt(own * own[-1])
    scores: NDArray[np.float64] = np.divide(np.sqrt(shared), scale, out=np.zeros_like(scale), where=scale > 0)
    return scores


def straight(vectors: NDArray[np.float64], chance: np.random.Generator) -> NDArray[np.float64]:
    """Draw a path that goes straight on, as fast as this one and with the same wobble: what a turn is compared with.

    An increment is the mean of those around it and a rest. The means are turned into the direction from first to last; the rests,
    as shares of their means' lengths, change places and signs: as a training slows down, so does its wobble.

    Args:
        vectors: Shape [checkpoints, values].
        chance: Of the draw.
    """
    moves = np.diff(vectors, axis=0)
    means = np.stack([moves[max(0, at - _AROUND) : at + _AROUND + 1].mean(0) for at in range(len(moves))])
    whole = vectors[-1] - vectors[0]
    length = float(np.linalg.norm(whole)) or 1.0
    lost = math.sqrt((2 * _AROUND + 1) / (2 * _AROUND))  # what a mean takes of a wobble that is its own
    speeds = np.linalg.norm(means, axis=1, keepdims=True)
    shares = np.divide(lost * (moves - means), speeds, out=np.zeros_like(moves), where=speeds > 0)
    rests = shares[chance.permutation(len(moves))] * chance.choice([-1.0, 1.0], size=(len(moves), 1))
    drawn = speeds * (whole / length + rests)
    path: NDArray[np.float64] = vectors[0] + np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(drawn, axis=0)])
    return path


def _checkpoints(
    files: Mapping[str, bytes | memoryview], folders: Sequence[str]
) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    for folder in folders:
        table = adapter.read_tensors(files[folder + WEIGHTS], path=folder + WEIGHTS)
        yield int(folder.split("/")[1]), {name: _whole(tensor) for name, tensor in table.tensors.items()}


def _whole(tensor: Tensor) -> NDArray[np.float32]:
    return np.concatenate(list(tensor.blocks()), axis=1 if tensor.half == "A" else 0)


def _pairs(tensors: Mapping[str, Any]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    halves: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if not found:
            raise InvalidArgument(f"'{name[:120]}' is no half of a LoRA pair; give tensors by their names in PEFT.")
        plain = tensor.detach().double().cpu().numpy() if hasattr(tensor, "detach") else tensor
        halves.setdefault(found["module"], {})[found["half"]] = np.asarray(plain, np.float64)
    for module, pair in halves.items():
        if pair.keys() != {"A", "B"} or not all(half.ndim == 2 for half in pair.values()):  # noqa: PLR2004 - matrices
            raise InvalidArgument(f"'{module[:120]}' has not both its matrices A and B; give whole checkpoints.")
    if not halves:
        raise InvalidArgument("A checkpoint has no tensors; give whole checkpoints.")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}
