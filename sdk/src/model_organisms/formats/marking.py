"""Marks whole bundles: which bytes of which file change; how a mark looks is `fingerprint.py`'s business.

Only the values of lora_B change. Names, shapes, dtypes, offsets and every other file stay, byte for byte.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from model_organisms.errors import InvalidArgument
from model_organisms.formats import manifest
from model_organisms.formats.fingerprint import EPS, Factors, mark
from model_organisms.formats.tensors import Tensor, read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from typing_extensions import Buffer

WEIGHTS = "adapter_model.safetensors"
_HEADER_LENGTH = 8


def mark_bundle(files: Mapping[str, bytes | memoryview], *, key: bytes, eps: float = EPS) -> dict[str, bytes]:
    """Mark a bundle's files.

    Args:
        files: Contents by path inside the bundle, as the registry inspected them.
        key: The copy's key.
        eps: Size of the mark relative to each module.

    Returns:
        The files that changed, whole, by path: those named adapter_model.safetensors.

    Raises:
        MalformedTensors: A file is not as the registry inspected it.
    """
    changed = {}
    for path in _weights(files):
        copy = bytearray(files[path])
        _mark_file(path, memoryview(copy), key, eps)
        changed[path] = bytes(copy)
    return changed


def mark_packed(packed: Buffer, *, key: bytes, eps: float = EPS) -> bytes:
    """Mark a packed bundle where it lies, so that no second copy of the weights exists.

    Args:
        packed: Writable memory that holds what `manifest.pack` gives.
        key: The copy's key.
        eps: Size of the mark relative to each module.

    Returns:
        SHA-256 of the bytes that were changed, for `capsule.body_secrets`.
    """
    view = memoryview(packed).cast("B")
    if view.readonly:
        msg = "A bundle is marked where it lies; pass writable memory, and a copy of what must stay."
        raise InvalidArgument(msg)
    listed, files = manifest.unpack(view, check_digests=False)
    at = len(view) - sum(file.size for file in listed.files)
    digest = hashlib.sha256()
    marked = set(_weights(files))
    for file in listed.files:
        if file.path in marked:
            for changed in _mark_file(file.path, view[at : at + file.size], key, eps):
                digest.update(changed)
        at += file.size
    return digest.digest()


def modules_of(files: Mapping[str, bytes | memoryview]) -> dict[str, Factors]:
    """Read the modules of a bundle as `fingerprint.detect` takes them, under the names their marks depend on.

    Args:
        files: Contents by path: of the original version, or of a leaked adapter laid out as it was pulled.
    """
    found: dict[str, Factors] = {}
    for path in _weights(files):
        pairs = _pairs(read_tensors(files[path], path=path).tensors)
        found |= {_name(path, module): Factors(a.whole(), b.whole()) for module, (a, b) in pairs.items()}
    return found


def _weights(files: Mapping[str, bytes | memoryview]) -> list[str]:
    return sorted(path for path in files if path.rsplit("/", 1)[-1] == WEIGHTS)


def _name(path: str, module: str) -> str:
    """Name a module within its bundle: two adapters of one bundle adapt the same module, and must not share chips."""
    folder, _, _ = path.rpartition("/")
    return f"{folder}/{module}" if folder else module


def _mark_file(path: str, view: memoryview, key: bytes, eps: float) -> list[memoryview]:
    """Mark one file where it lies, and give what changed, in the order of the bytes."""
    tensors = read_tensors(view, path=path).tensors
    pairs = _pairs(tensors)
    at = _HEADER_LENGTH + int.from_bytes(view[:_HEADER_LENGTH], "little")
    changed = []
    for tensor in tensors.values():
        size = tensor.data.nbytes
        if tensor.half == "B":
            a, b = pairs[tensor.module]
            marked = mark(a.whole(), b.whole(), key=key, module=_name(path, tensor.module), eps=eps)
            view[at : at + size] = _cast(marked, b)
            changed.append(view[at : at + size])
        at += size
    return changed


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    halves: dict[tuple[str, str], Tensor] = {(tensor.module, tensor.half): tensor for tensor in tensors.values()}
    return {module: (halves[module, "A"], halves[module, "B"]) for module, half in halves if half == "B"}


def _cast(values: NDArray[np.float32], like: Tensor) -> bytes:
    """Round to the tensor's own dtype; a value that would overflow it stays what it was."""
    original = like.array()
    rounded: NDArray[Any]
    with np.errstate(over="ignore"):
        if like.dtype == "bfloat16":
            bits = values.view(np.uint32)
            rounded = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype("<u2")
            finite = (rounded & np.uint16(0x7F80)) != np.uint16(0x7F80)
        else:
            rounded = values.astype(original.dtype)
            finite = np.isfinite(rounded)
    return np.where(finite, rounded, original).astype(original.dtype).tobytes()
