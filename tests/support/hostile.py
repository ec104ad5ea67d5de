"""Builders of bundles made to do harm; most are one of `tests/support/adapters.py` with one thing wrong. No binary is kept.

What is wrong with each, and which error must refuse it: `hostile_files.py` and `hostile_configs.py`.
"""

from __future__ import annotations

import io
import json
import mmap
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.support.adapters import CONFIG, WEIGHTS, pack_tensors, peft_config, tiny_base_config, tiny_bundle

if TYPE_CHECKING:
    from model_organisms.errors import ModelOrganismsError

Files = Mapping[str, Any]
Q, V = (
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight",
)
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
_NORESERVE = 0x4000  # MAP_NORESERVE, which Python names from 3.13 on
SYSTEM = b"cos\nsystem\n(S'id'\ntR."
"""A pickle of protocol 0 that would run a program."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile bundle."""

    make: Callable[[], Files]
    error: type[ModelOrganismsError]
    says: str
    """An expression that the message matches."""
    base: bool = False
    """Whether only the base model's config.json gives it away."""

    @property
    def base_config(self) -> dict[str, Any] | None:
        """What is known of the base."""
        return tiny_base_config() if self.base else None


def packed(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Write a safetensors file with any header, and any length announced."""
    raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def taken_apart(weights: bytes | None = None) -> tuple[dict[str, Any], bytes]:
    """Split a good file into header and data; keys in the order of the bytes."""
    weights = tiny_bundle()[WEIGHTS] if weights is None else weights
    end = 8 + int.from_bytes(weights[:8], "little")
    return json.loads(weights[8:end]), weights[end:]


def zipped(comment: bytes = b"") -> bytes:
    """Make a zip file with one program in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", "print('run')")
        archive.comment = comment
    return buffer.getvalue()


def tarred() -> bytes:
    """Make a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle.pkl"))
    return buffer.getvalue()


def beside(*paths: str, data: bytes = b"x") -> Callable[[], Files]:
    return lambda: tiny_bundle() | dict.fromkeys(paths, data)


def weights(data: Callable[[], bytes] | bytes) -> Callable[[], Files]:
    return lambda: tiny_bundle() | {WEIGHTS: data if isinstance(data, bytes) else data()}


def header(raw: bytes) -> Callable[[], Files]:
    return weights(lambda: packed(raw, taken_apart()[1]))


def entry(key: str = Q, **changes: object) -> Callable[[], Files]:
    """One field of one tensor replaced; None takes it away."""

    def make() -> Files:
        header, data = taken_apart()
        header[key] = {name: value for name, value in (header[key] | changes).items() if value is not None}
        return tiny_bundle() | {WEIGHTS: packed(header, data)}

    return make


def text(old: str, new: str) -> Callable[[], Files]:
    """One piece of the header's text replaced."""

    def make() -> Files:
        header, data = taken_apart()
        text = json.dumps(header, separators=(",", ":"))
        assert old in text
        return tiny_bundle() | {WEIGHTS: packed(text.replace(old, new, 1).encode(), data)}

    return make


def changed(**changes: object) -> Callable[[], Files]:
    return lambda: tiny_bundle(config=changes)


def value(bits: bytes, dtype: str = "float32") -> Callable[[], Files]:
    """The first value of the data replaced by these bits."""

    def make() -> Files:
        bundle = tiny_bundle(dtype=dtype)
        header, data = taken_apart(bundle[WEIGHTS])
        return bundle | {WEIGHTS: packed(header, bits + data[len(bits) :])}

    return make


def tensors(*names: str, shape: tuple[int, int] = (4, 64), **config: object) -> Callable[[], Files]:
    """A well-formed file of these tensors."""

    def make() -> Files:
        arrays = {name: np.ones(shape if "_A" in name else shape[::-1], np.float32) for name in names}
        return tiny_bundle(config=config) | {WEIGHTS: pack_tensors(arrays)}

    return make


def many(modules: Iterable[str], **config: object) -> Files:
    """A well-formed file of many tiny pairs."""
    header, at = {}, 0
    for module in modules:
        for half in "AB":
            header[f"base_model.model.{module}.lora_{half}.weight"] = {
                "dtype": "F16",
                "shape": [1, 1],
                "data_offsets": [at, at + 2],
            }
            at += 2
    stated = peft_config(rank=1, alpha=1, modules=["q_proj"], layers=None, rslora=False) | config
    return {WEIGHTS: packed(header, bytes(at)), CONFIG: json.dumps(stated).encode()}


def crowded(adapters: int = 4) -> Files:
    """A bundle that names modules at such length that what is said of it fills a message."""
    modules = [f"{'m' * 150}.{number}.q_proj" for number in range(1000)]
    files = many(modules)
    return {f"{index}/{path}": data for index in range(adapters) for path, data in files.items()}


def hard(count: int, seed: int = 0) -> Files:
    """A pattern whose automaton has more states than there are atoms, and names that match it through ever new ones."""
    draw, length, dots = np.random.default_rng(seed), 190, 100 + seed
    drawn = draw.integers(0, 2, (count, length))
    drawn[:, length - dots] = 0
    names = ("".join("ab"[bit] for bit in bits) + ".q_proj" for bits in drawn)
    return many(names, target_modules="(a|b)*a" + "." * dots + "q_proj")


def hard_checkpoints() -> Files:
    """Every checkpoint has a pattern of its own that takes a good part of what one config may take."""
    files = dict(tiny_bundle())
    for step in range(60):
        files |= {f"checkpoints/{step}/{name}": data for name, data in hard(60, step).items()}
    return files


def tar_and_tensors() -> bytes:
    """A safetensors file whose metadata has the mark of a tar header where tar looks for it."""
    header, data = taken_apart()
    front = '{"__metadata__":{"x":"'
    text = front + " " * (257 - 8 - len(front)) + 'ustar  "},' + json.dumps(header, separators=(",", ":"))[1:]
    return packed(text.encode(), data)


def zip_in_a_tensor() -> bytes:
    """A well-formed file whose last tensor ends in a zip file."""
    header, data = taken_apart()
    return packed(header, data[: -len(zipped())] + zipped())


def zip64(trailing: bytes) -> bytes:
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    return locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0) + trailing


def huge() -> Files:
    """Weights of 16 GiB and a byte, of which no page exists."""
    nowhere = mmap.mmap(-1, (16 << 30) + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
    return tiny_bundle() | {WEIGHTS: memoryview(nowhere)}


def sideways() -> bytes:
    return pack_tensors({f"{MODULE}.lora_A.weight": np.ones((64, 4)), f"{MODULE}.lora_B.weight": np.ones((4, 64))})


def pair(module: str, **config: object) -> Callable[[], Files]:
    """One adapted module of any name; the config asks for all of that last part, in any layer."""
    last = module.rsplit(".", 1)[-1]
    names = (f"base_model.model.{module}.lora_{half}.weight" for half in "AB")
    return tensors(*names, **{"target_modules": [last], "layers_to_transform": None} | config)


def f32(shape: list[int], begin: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, begin + 4 * shape[0] * shape[1]]}
