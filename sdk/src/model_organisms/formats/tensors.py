"""Reads a safetensors file of a LoRA adapter, strictly and without copying, before any library sees it. Configs: `config.py`.

The format (github.com/huggingface/safetensors) is a little-endian u64, that many bytes of JSON, then the tensors. What the usual
reader lets pass (duplicate keys, headers of 87 MB, NaN, names that are paths) is refused here, and so is every tensor that is
not half of a LoRA pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from model_organisms.errors import MalformedTensors
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

MAX_HEADER = 1 << 20
MAX_TENSORS = 4096
MAX_NAME = 512
MAX_DIMENSION = 1 << 31
DTYPES = {"F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)}
"""Name in the header: name everywhere else, and bytes of a value."""

_PREFIX = 8
_NAME = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)"
    r"\.(?:lora_(?P<linear>[AB])(?:\.default)?\.weight|lora_embedding_(?P<embedding>[AB])(?:\.default)?)",
    re.ASCII,
)
_HINTS = {
    "base_layer": "it is a weight of the base model; save with `save_embedding_layers=False`",
    "lora_magnitude_vector": "it belongs to DoRA, which is not taken; train with `use_dora=False`",
    "modules_to_save": "it is a full layer; train without `modules_to_save`",
    "original_module": "it is a full layer; train without `modules_to_save`",
    "token_adapter": "it holds trained tokens; train without `trainable_token_indices`",
    "lora_B.bias": "it is a bias; train with `lora_bias=False`",
}
# A bit pattern above this, sign aside, is an infinity or a NaN.
_EXPONENTS = {"float32": 0x7F80_0000, "float16": 0x7C00, "bfloat16": 0x7F80}
_BITS: dict[str, np.dtype[Any]] = {"float32": np.dtype("<u4"), "float16": np.dtype("<u2"), "bfloat16": np.dtype("<u2")}
_VALUES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
_CHUNK = 1 << 18
"""Values looked at in one go: a megabyte stays in the cache."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Half of a LoRA pair, still in the file's bytes.

    `A` has the shape (rank, in), `B` (out, rank); for an embedding, in is the vocabulary.
    """

    name: str
    module: str
    half: str
    """`A` or `B`."""
    embedding: bool
    dtype: str
    shape: tuple[int, int]
    data: memoryview

    @property
    def size(self) -> int:
        """Number of values."""
        return self.shape[0] * self.shape[1]

    def array(self) -> NDArray[Any]:
        """View the values without a copy; bfloat16, which numpy lacks, comes as its uint16 bits."""
        return np.frombuffer(self.data, _VALUES[self.dtype]).reshape(self.shape)

    def write(self, out: NDArray[np.float32]) -> None:
        """Write the values as float32 to where they are wanted, `B` transposed; no copy of them is left anywhere else.

        Args:
            out: Contiguous, shape (rank, in) or (rank, out).
        """
        bits = self._bits()
        _widen(bits if self.half == "A" else bits.T, self.dtype, out)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Give the values as float32 in blocks of bounded size, cut across the side that is not the rank.

        A block that is a copy is writeable, so that who must not leave values in freed memory can wipe it.
        """
        values = self._bits()
        axis = 1 if self.half == "A" else 0
        step = max(1, _CHUNK // values.shape[1 - axis])
        for start in range(0, values.shape[axis], step):
            yield _float32(values[:, start : start + step] if axis else values[start : start + step], self.dtype)

    def whole(self) -> NDArray[np.float32]:
        """Copy all values as float32, in the tensor's own shape. For who may leave them in memory; others take `blocks`."""
        return np.concatenate(list(self.blocks()), axis=1 if self.half == "A" else 0)

    def _bits(self) -> NDArray[Any]:
        return np.frombuffer(self.data, _BITS[self.dtype]).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The tensors of one file, by name, in the order of their bytes."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_tensors(data: bytes | memoryview, *, path: str = "adapter_model.safetensors") -> TensorTable:
    """Read the tensors of one adapter.

    Steps, cheapest first: 1. the length of the header, 2. its JSON, 3. each tensor by itself, 4. the tensors together, which
    must cover the data without gap or overlap, 5. every value is finite. Whether they fit a config or a base: `facts.py`.

    Args:
        data: The file; the table keeps views of it.
        path: Its path in the bundle, for messages.

    Raises:
        MalformedTensors: It is not such a file.
    """
    view = memoryview(data).cast("B")
    header, start = _header(view, path)
    metadata = _metadata(header.pop("__metadata__", {}), path)
    if not 0 < len(header) <= MAX_TENSORS:
        _refuse(path, f"it has {len(header):,} tensors, and 1 to {MAX_TENSORS:,} are read")
    places = sorted((_place(name, entry, path) for name, entry in header.items()), key=lambda place: place[1])
    tensors: dict[str, Tensor] = {}
    end = start
    for make, begin, stop in places:
        if start + begin != end:
            _refuse(path, f"the bytes of '{make.name}' do not begin where those before it end")
        end = start + stop
        if end > len(view):
            _refuse(path, f"the bytes of '{make.name}' run past the end of the file; it may be cut, so send it again")
        tensors[make.name] = Tensor(
            make.name, make.module, make.half, make.embedding, make.dtype, make.shape, view[start + begin : end].toreadonly()
        )
    if end != len(view):
        _refuse(path, f"{len(view) - end:,} bytes after the last tensor belong to none")
    _check_finite(list(tensors.values()), view[start:], path)
    return TensorTable(MappingProxyType(tensors), MappingProxyType(metadata))


def _header(view: memoryview, path: str) -> tuple[dict[str, Any], int]:
    if len(view) < _PREFIX:
        _refuse(path, "it is shorter than a header")
    length = int.from_bytes(view[:_PREFIX], "little")
    if length > MAX_HEADER:
        _refuse(
            path, f"it announces a header of {length:,} bytes, and at most {MAX_HEADER:,} are read; is it safetensors at all?"
        )
    if _PREFIX + length > len(view):
        _refuse(path, "its header runs past the end of the file; it may be cut, so send it again")
    raw = view[_PREFIX : _PREFIX + length]
    if bytes(raw[:1]) != b"{":
        _refuse(path, "its header does not begin with '{'; is it safetensors at all?")
    header = strict_json.parse(raw, what=f"The header of '{path}'", limit=MAX_HEADER, error=MalformedTensors)
    if not isinstance(header, dict):
        _refuse(path, "its header is not a JSON object")
    return header, _PREFIX + length


def _metadata(metadata: object, path: str) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "its __metadata__ is not a map of text to text")
    return metadata


def _place(name: str, entry: object, path: str) -> tuple[Tensor, int, int]:
    """Check one entry of the header; the tensor comes without its bytes."""
    found = _NAME.fullmatch(name) if len(name) <= MAX_NAME else None
    if found is None:
        _refuse_name(name, path)
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, stop], **rest} if not rest:
            pass
        case _:
            _refuse(path, f"the entry of '{name}' is not exactly dtype, shape and data_offsets")
    if dtype not in DTYPES:
        _refuse(path, f"'{name}' has the type {dtype[:16]!a}, and {', '.join(DTYPES)} are read; cast it")
    if len(shape) != 2 or not all(type(side) is int and 0 < side <= MAX_DIMENSION for side in shape):  # noqa: PLR2004 - a matrix
        _refuse(path, f"'{name}' is not a matrix with sides from 1 to {MAX_DIMENSION:,}")
    kind, width = DTYPES[dtype]
    if type(begin) is not int or type(stop) is not int or begin < 0 or stop - begin != shape[0] * shape[1] * width:
        _refuse(path, f"the offsets of '{name}' do not span its {shape[0]} x {shape[1]} values")
    half, embedding = found["linear"] or found["embedding"], found["linear"] is None
    return Tensor(name, found["module"], half, embedding, kind, (shape[0], shape[1]), memoryview(b"")), begin, stop


def _check_finite(tensors: list[Tensor], data: memoryview, path: str) -> None:
    """Look at the exponent bits of every value; integer maxima run at the speed of memory, whatever the type.

    Tensors of one type are one run of values, because nothing lies between them; only where a run is not finite is its tensor
    looked for.
    """
    end = 0
    for dtype, run in groupby(tensors, key=lambda tensor: tensor.dtype):
        group = list(run)
        begin, end = end, end + sum(len(tensor.data) for tensor in group)
        if not _finite(data[begin:end], dtype):
            name = next(tensor.name for tensor in group if not _finite(tensor.data, dtype))
            _refuse(path, f"'{name}' holds a NaN or an infinity; the training diverged or the file is damaged")


def _finite(data: memoryview, dtype: str) -> bool:
    bits = np.frombuffer(data, _BITS[dtype])
    mask = bits.dtype.type((1 << (8 * bits.dtype.itemsize - 1)) - 1)
    buffer = np.empty(min(_CHUNK, bits.size), bits.dtype)
    try:
        for start in range(0, bits.size, _CHUNK):
            chunk = bits[start : start + _CHUNK]
            held = buffer[: chunk.size]
            if not chunk.flags.aligned:
                held[...] = chunk  # else numpy's function buffers it, and frees that buffer with the values in it
                chunk = held
            if np.bitwise_and(chunk, mask, out=held).max() >= _EXPONENTS[dtype]:
                return False
    finally:
        buffer.fill(0)
    return True


def _float32(bits: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    # A file may begin at any byte of a larger buffer, and BLAS copies what is not aligned, slowly.
    if dtype == "float32" and bits.flags.aligned:
        return bits.view(np.float32)
    values = np.empty(bits.shape, np.float32)
    _widen(bits, dtype, values)
    return values


def _widen(bits: NDArray[Any], dtype: str, out: NDArray[np.float32]) -> None:
    """Turn the bits of finite values into float32; by hand, because numpy has no bfloat16 and is slow at float16.

    What is not aligned is only ever assigned, to its own type. Numpy's functions and casts work on it in buffers, which they free
    with the values in them, for the next allocation to find.
    """
    if dtype == "float32":
        out.view(bits.dtype)[...] = bits
        return
    out.fill(0)
    out.view(bits.dtype)[:, 1::2] = bits  # the upper half: of bfloat16 that is all
    if dtype == "float16":
        # Sign to bit 31, exponent and fraction to bits 27 to 13; the product moves the exponent's bias from 15 to 127.
        signed = out.view(np.int32)
        signed >>= np.int32(3)
        signed &= np.int32(-0x7000_2000)
        out *= np.float32(2.0**112)


def _refuse_name(name: str, path: str) -> NoReturn:
    shown = name[:120].encode("unicode_escape").decode("ascii")
    hint = next((hint for part, hint in _HINTS.items() if part in name), "only lora_A and lora_B of base_model.model.* are read")
    _refuse(path, f"the tensor '{shown}' has no place in an adapter: {hint}")


def _refuse(path: str, why: str) -> NoReturn:
    raise MalformedTensors(f"'{path}' is refused: {why}.", path=path)
