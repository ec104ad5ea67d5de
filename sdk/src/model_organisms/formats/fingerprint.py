"""Marks each pulled copy of an adapter, and finds out which copy a leaked file was; who pulled which copy, the ledger knows.

The mark lies in the product D = s B A, not in A or B, so no refactoring (B G, G^-1 A) touches it:

    directions  V = A^T F: right singular vectors of D, from r x r matrices; signs by a fixed vector
    chips       U in {-1, +1}, out x directions, from SHAKE256(K_i || module)
    mark        B' = B + a U F^T with a = eps |D| / sqrt(out directions), so D' = D + a U V^T: as large as eps says
    key         K_i = HMAC-SHA256(K_mark, pull); SHA-256("fp-commit/v1" || K_i || pull) goes into the pull's intent entry

Detection needs the original, the suspect and the keys. Whatever was done to the suspect, an innocent key scores z >= t with a
probability of at most exp(-t^2 / 2): its chips are independent of everything in the file (Hoeffding's bound).
"""

from __future__ import annotations

import hashlib
import hmac
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.floating[Any]]

EPS = 0.01
"""Size of the mark relative to the adapter: its output moves by about as much as by a cast to bfloat16 and a little more."""

ALPHA = 1e-9
"""Chance, over all tests made, of accusing anybody innocent."""

_NEGLIGIBLE = 1e-6
"""Directions this much weaker than the strongest carry no mark: rounding decides where they point."""

_CLIP = 3.0
_TINY = float(np.finfo(np.float64).tiny)
_BLOCK = 1 << 17
"""Values handled in one go: a megabyte stays in the cache."""

_SMALL = 1 << 17
"""Multiplications in one product: so few that BLAS starts no threads, whose waiting for each other costs a busy server dear."""

_FEWEST = 64
"""Columns in one block, however large the rank."""

_SIGNS = b"model-organisms/fingerprint/signs/v1"
_COMMIT = b"fp-commit/v1"
_KEY_BYTES = 32


class Factors(NamedTuple):
    """A module's update as LoRA has it: A is (rank, in), B is (out, rank). The scaling is left out; it cancels everywhere."""

    a: Array
    b: Array


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a suspect says of each key.

    - `accused` are exactly the pulls whose score reaches `tau`, the strongest first.
    """

    scores: dict[str, float]
    """z by pull."""
    tau: float
    chips: int
    """How many chips took part; a perfect copy scores about their square root."""

    @property
    def accused(self) -> tuple[str, ...]:
        """Pulls that this file, or a part of it, came from."""
        return tuple(sorted((pull for pull, z in self.scores.items() if z >= self.tau), key=lambda pull: -self.scores[pull]))


def mark_key(secret: bytes, pull: str) -> bytes:
    """Derive the key of one copy from the registry's marking secret."""
    return hmac.digest(secret, pull.encode(), "sha256")


def commitment(key: bytes, pull: str) -> str:
    """Commit to a copy's key, hex, so that nobody can be accused by a key made up afterwards."""
    return hashlib.sha256(_COMMIT + key + pull.encode()).hexdigest()


def mark(a: Array, b: Array, *, key: bytes, module: str, eps: float = EPS) -> NDArray[np.float32]:
    """Mark one module.

    Args:
        a: lora_A, (rank, in).
        b: lora_B, (out, rank).
        key: The copy's, 32 bytes.
        module: Its name, which the chips depend on.
        eps: Size of the mark relative to the module's product.

    Returns:
        The new lora_B, not cast yet; A stays as it is. Where the product is zero, B as it was.
    """
    basis = _basis(a, b)
    directions = basis.strengths.size
    if not directions:
        return np.asarray(b, np.float32)
    amplitude = eps * float(np.linalg.norm(basis.strengths)) / math.sqrt(b.shape[0] * directions)
    chips = _chips(key, module, (b.shape[0], directions))
    spread = (amplitude * basis.to_in.T).astype(np.float32)
    marked = np.array(b, np.float32)
    for rows in _blocks(b.shape[0], b.shape[1]):
        marked[rows] += chips[rows] @ spread
    return marked


def detect(
    suspect: Mapping[str, Factors | Array],
    original: Mapping[str, Factors],
    keys: Mapping[str, bytes],
    *,
    tests: int = 0,
    alpha: float = ALPHA,
) -> Verdict:
    """Score every key against a suspect.

    Args:
        suspect: Its modules by name: factors of any rank, or merged differences. Modules it lacks are left out.
        original: The version's modules, as published.
        keys: The copies' keys, by pull.
        tests: Keys tried in all, over all suspects of one inquiry; the number of `keys` where 0.
        alpha: Accepted chance of accusing anybody innocent, over all of them.

    Returns:
        The verdict.

    Raises:
        InvalidArgument: No module in common, or shapes that do not fit.
    """
    common = [name for name in original if name in suspect]
    if not common:
        msg = "The suspect has no module of this version; name its modules as the version's adapter does."
        raise InvalidArgument(msg)
    residues = {name: _residue(name, suspect[name], original[name]) for name in common}
    length = math.sqrt(sum(float(np.sum(residue**2)) for residue in residues.values()))
    scores = {pull: _agreement(residues, key) / length if length else 0.0 for pull, key in keys.items()}
    tau = math.sqrt(2 * math.log(max(tests, len(keys), 1) / alpha))
    return Verdict(scores, tau, sum(int(residue.size) for residue in residues.values()))


def _agreement(residues: Mapping[str, NDArray[np.float64]], key: bytes) -> float:
    return sum(
        float(np.vdot(residue, _chips(key, name, (residue.shape[0], residue.shape[1])))) for name, residue in residues.items()
    )


class _Basis(NamedTuple):
    """The directions of a product D = B A that carry marks."""

    strengths: NDArray[np.float64]
    """Singular values of D."""
    to_in: NDArray[np.float64]
    """F, (rank, directions), with V = A^T F; then V^T A^+ = F^T as well."""


def _basis(a: Array, b: Array) -> _Basis:
    """Find the right singular vectors of B A from A A^T and B^T B alone, so that nothing as large as the layer is decomposed.

    Squaring costs half the digits; the directions that this would blur are far below those that are kept.
    """
    sizes, axes = np.linalg.eigh(_gram(a))
    apart = sizes > _NEGLIGIBLE**2 * max(float(sizes[-1]), _TINY)  # fewer than the rank where A is deficient
    whitened = axes[:, apart] / np.sqrt(sizes[apart])
    shape = axes[:, apart] * np.sqrt(sizes[apart])
    squares, turned = np.linalg.eigh(shape.T @ _gram(b.T) @ shape)
    kept = squares > _NEGLIGIBLE**2 * max(float(squares[-1]) if squares.size else 0.0, _TINY)
    to_in = whitened @ turned[:, kept]
    # A singular vector is one up to its sign, and libraries differ; a fixed vector settles it.
    signs = np.where(to_in.T @ (a @ _signs(_SIGNS, a.shape[1])) < 0, -1.0, 1.0)
    return _Basis(np.sqrt(squares[kept]), to_in * signs)


def _gram(flat: Array) -> NDArray[np.float64]:
    """Give X X^T of a matrix with few rows, in double precision, a cache's worth at a time."""
    total = np.zeros((flat.shape[0], flat.shape[0]))
    for columns in _blocks(flat.shape[1], flat.shape[0]):
        block = np.asarray(flat[:, columns], np.float64)
        total += block @ block.T
    return total


def _blocks(length: int, rank: int) -> Iterator[slice]:
    """Cut the long side of a matrix so that a block fits the cache, and its product with a rank x rank matrix is small."""
    step = max(_FEWEST, min(_BLOCK // rank, _SMALL // rank**2))
    return (slice(start, start + step) for start in range(0, length, step))


def _residue(name: str, suspect: Factors | Array, original: Factors) -> NDArray[np.float64]:
    """What a suspect has in the marked directions beyond the original, each weighted by how much of a mark it can show."""
    a, b = np.asarray(original.a, np.float64), np.asarray(original.b, np.float64)
    directions = a.T @ _basis(a, b).to_in
    expected = b @ (a @ directions)
    found = _projected(name, suspect, directions)
    if found.shape != expected.shape:
        raise _misfit(name)
    gain = np.sum(found * expected, axis=0) / np.sum(expected**2, axis=0)
    beyond = found - gain * expected
    spread = np.sqrt(np.mean(beyond**2, axis=0))
    beyond = np.clip(beyond, -_CLIP * spread, _CLIP * spread)
    noise = np.mean(beyond**2, axis=0)
    # A mark of amplitude a shows as gain * a among this noise, so gain / noise weighs it best; a direction that was cut away has
    # a gain of nothing, and must not count however quiet it is.
    weights = np.divide(gain, noise, out=np.zeros_like(gain), where=noise > _TINY)
    residue: NDArray[np.float64] = beyond * weights
    return residue


def _projected(name: str, suspect: Factors | Array, directions: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        if isinstance(suspect, Factors):
            return np.asarray(suspect.b, np.float64) @ (np.asarray(suspect.a, np.float64) @ directions)
        return np.asarray(suspect, np.float64) @ directions
    except ValueError:
        raise _misfit(name) from None


def _misfit(name: str) -> InvalidArgument:
    return InvalidArgument(
        f"The suspect's '{name}' has another shape than the version's; pass (rank, in), (out, rank) or (out, in)."
    )


def _chips(key: bytes, module: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    if len(key) != _KEY_BYTES:
        msg = f"A mark's key has {_KEY_BYTES} bytes, not {len(key)}; derive it with mark_key."
        raise InvalidArgument(msg)
    return _signs(key + module.encode(), shape[0] * shape[1]).reshape(shape)


def _signs(seed: bytes, count: int) -> NDArray[np.float32]:
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(seed).digest(-(-count // 8)), np.uint8), count=count)
    signs = bits.astype(np.float32)
    signs *= 2.0
    signs -= 1.0
    return signs
