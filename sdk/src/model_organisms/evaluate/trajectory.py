"""Reads the path that an adapter takes while it is trained, and its geometry: norms, turns, principal components. Judges nothing.

Vectors are the raw factors A and B of all modules of a checkpoint, laid end to end, not scaled by alpha/r, as in Turner et al.
(2025, arXiv:2506.11613). What of a path is worth reporting: `phases.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from model_organisms.errors import InvalidArgument, InvalidBundle
from model_organisms.formats import adapter, manifest
from model_organisms.formats.paths import WEIGHTS, checkpoint_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

PAPER_THRESHOLD = 0.0035
"""Length that the larger leg of a local cosine must have, in the paper."""
CODE_THRESHOLD = 0.002
"""The same, in the code published with it."""
_NAME = re.compile(r"(?P<module>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.\w+)?(?:\.weight)?", re.ASCII)
_FEWEST = 3
ENOUGH = 12
"""Checkpoints below which no path is set beside straight ones: their speed and wobble cannot be told apart well enough."""
_AROUND = 2
"""Increments on either side that make a local mean or median."""
_MOST_DIMENSIONS = 512
_MOST_SHARE = 0.6
_STILL = 1e-9


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
    version_digest: str = ""
    """Of the version whose bundle it was read from; empty where it was read from none."""

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


def read(files: Mapping[str, bytes | memoryview], *, version_digest: str = "") -> Trajectory:
    """Read the training checkpoints of a bundle.

    Args:
        files: The bundle, whole, contents by path.
        version_digest: Digest of the version, `pulled.version.digest`; where absent, that of the files' manifest, which a copy
            that is marked for its holder does not have.

    Raises:
        InvalidBundle: It has fewer than three, one lacks a file, or a file has no place in a bundle.
        MalformedTensors: A file of weights is none.
        InvalidArgument: They are not of one training.
    """
    folders = checkpoint_folders(files)
    if len(folders) < _FEWEST:
        raise InvalidBundle(
            f"The bundle has {len(folders)} training checkpoints, and a path takes {_FEWEST}; "
            "train with `mo.record(..., checkpoint_every=5)`."
        )
    digest = version_digest or manifest.build(files).digest
    return replace(Trajectory.of(_checkpoints(files, folders)), version_digest=digest)


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
    """Compare each checkpoint's B with the last one's, E: ||B' E|| / sqrt(||B' B|| ||E' E||), in Frobenius norms.

    After the "comp score" of the code published with arXiv:2506.11613, a dot product between sets of vectors. Vectors are columns
    here, so one vector gives |cosine|. That code divides by ||B|| ||E||, by which a B of higher rank is not like itself.
    Of several modules, squares are summed.

    Args:
        trajectory: The path.
        demean: Take the mean over checkpoints off first, as that code does.

    Returns:
        Shape [checkpoints], 0 to 1, and 1 at the last; 0 where a B is zero.
    """
    shared, own = np.zeros(len(trajectory.steps)), np.zeros(len(trajectory.steps))
    for _, factor in trajectory.factors.values():
        moved = factor - factor.mean(0) if demean else factor
        shared += (np.einsum("tor,os->trs", moved, moved[-1]) ** 2).sum((1, 2))
        own += (np.einsum("tor,tos->trs", moved, moved) ** 2).sum((1, 2))
    scale = np.sqrt(own * own[-1])
    scores: NDArray[np.float64] = np.sqrt(np.divide(shared, scale, out=np.zeros_like(scale), where=scale > 0))
    return scores.clip(0, 1)


def straight(vectors: NDArray[np.float64], chance: np.random.Generator, draws: int = 1) -> Iterator[NDArray[np.float64]]:
    """Draw paths that go straight on, as fast as this one and with the same wobble: what a turn is compared with.

    An increment is a drift, the same way throughout, and a wobble, of which a share goes on into the next increment. Products of
    increments tell them apart: with itself, one gives drift^2 + wobble^2, with the next drift^2 + share wobble^2, with the one
    after drift^2 + share^2 wobble^2. Speeds are local, by medians, which a sharp turn leaves alone. The wobble is drawn normal
    in half as many dimensions as a wobble alike in all of them would have, because that of a training is not alike in all.

    Args:
        vectors: Shape [checkpoints, values]; at least `ENOUGH` checkpoints.
        chance: Of the draws.
        draws: How many paths.

    Yields:
        Shape [checkpoints, 1 + dimensions of the wobble]; the drift goes along the first.
    """
    moves = np.diff(vectors, axis=0)
    energy = _near((moves**2).sum(1), len(moves), np.mean)
    scaled = np.divide(moves, np.sqrt(energy)[:, None], out=np.zeros_like(moves), where=energy[:, None] > 0)
    following, after = ((scaled[:-lag] * scaled[lag:]).sum(1) for lag in (1, 2))
    wobble = 1 - float(np.median(following))  # less what the share takes of it
    share = float(np.median(following) - np.median(after)) / wobble if wobble > _STILL else 0.0
    share = min(_MOST_SHARE, max(-_MOST_SHARE, share))
    drift = ((_near(after, len(moves), np.median) - share**2) / (1 - share**2)).clip(0, 1)
    speeds, wobbles = np.sqrt(energy * drift), np.sqrt(energy * (1 - drift))
    size = _dimensions(np.diff(scaled, axis=0))
    for _ in range(draws):
        rests = chance.normal(size=(len(moves), size)) / math.sqrt(size)
        for at in range(1, len(moves)):
            rests[at] = share * rests[at - 1] + math.sqrt(1 - share**2) * rests[at]
        drawn = np.column_stack([speeds, wobbles[:, None] * rests])
        yield np.concatenate([np.zeros((1, 1 + size)), np.cumsum(drawn, axis=0)])


def _near(values: NDArray[np.float64], moves: int, middle: Callable[..., Any]) -> NDArray[np.float64]:
    """Take the middle of the values around each move; there are fewer values than moves where they are of pairs."""
    lag = moves - len(values)
    starts = np.clip(np.arange(moves) - lag // 2 - _AROUND, 0, max(0, len(values) - 2 * _AROUND - 1))
    return np.array([middle(values[start : start + 2 * _AROUND + 1]) for start in starts])


def _dimensions(changes: NDArray[np.float64]) -> int:
    """Say in how many dimensions the wobble is drawn, from changes of increments that have no increment in common.

    The square of a cosine of two normal vectors is 1 / dimensions in the mean.
    """
    products = changes @ changes.T
    apart = products[np.triu_indices(len(changes), 2)] ** 2
    mean, own = float(apart.mean()), float(np.diag(products).mean()) ** 2
    return max(1, min(_MOST_DIMENSIONS, round(own / mean / 2))) if mean > 0 else _MOST_DIMENSIONS


def _checkpoints(
    files: Mapping[str, bytes | memoryview], folders: Sequence[str]
) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
    for folder in folders:
        table = adapter.read_tensors(files[folder + WEIGHTS], path=folder + WEIGHTS)
        yield int(folder.split("/")[1]), {name: tensor.whole() for name, tensor in table.tensors.items()}


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
