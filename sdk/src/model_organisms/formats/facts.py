"""What an adapter's bytes say of it, whatever its card claims: tensors, config and base model held against each other.

Norms are exact and cheap: |B A|^2 is the sum over all entries of (B^T B) * (A A^T), two r x r matrices, so the product, which is
as large as the layer, is never formed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from model_organisms.errors import MalformedTensors, ShapeMismatch
from model_organisms.formats.config import MAX_LAYERS
from model_organisms.formats.targeting import layer_of
from model_organisms.records import AdapterFacts, ModuleFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model_organisms.formats.config import AdapterConfig
    from model_organisms.formats.dimensions import BaseDimensions
    from model_organisms.formats.targeting import Targeting
    from model_organisms.formats.tensors import Tensor, TensorTable

Pair = tuple["Tensor", "Tensor"]


def adapter_facts(table: TensorTable, targeting: Targeting, base: BaseDimensions | None, *, path: str = ".") -> AdapterFacts:
    """Check an adapter against its config and its base, and state its facts.

    Args:
        table: Its tensors.
        targeting: Its config.
        base: Its base model's layers, where the base is known.
        path: Its folder inside the bundle, `.` for the root.

    Raises:
        ShapeMismatch: Tensors, config and base do not fit each other.
        MalformedTensors: Values so large that their product is not finite.
    """
    pairs, config = check_shapes(table, targeting, base, path=path), targeting.config
    modules = tuple(_module(name, pair, targeting.scaling(name, pair[0].shape[0]), path) for name, pair in pairs.items())
    return AdapterFacts(
        path=path,
        dtype="+".join(sorted({tensor.dtype for tensor in table.tensors.values()})),
        parameters=sum(tensor.size for tensor in table.tensors.values()),
        ranks=tuple(sorted({module.rank for module in modules})),
        layers=tuple(sorted({layer for name in pairs if (layer := layer_of(name)) is not None})),
        target_modules=tuple(sorted({name.rsplit(".", 1)[-1] for name in pairs})),
        alpha=config.alpha,
        rslora=config.rslora,
        modules=modules,
    )


def check_shapes(table: TensorTable, targeting: Targeting, base: BaseDimensions | None, *, path: str = ".") -> dict[str, Pair]:
    """Check that tensors, config and base fit each other.

    Steps: 1. every module has an A and a B of one rank, 2. the rank and the module are the config's, 3. the config's layers exist
    and carry tensors, 4. the base has such a module, of these widths, 5. no module the config names in the base is missing.

    Returns:
        A and B by module, in the order of the layers.

    Raises:
        ShapeMismatch: They do not.
    """
    pairs = _pairs(table, path)
    for name, pair in pairs.items():
        _check_rank(name, pair, targeting, path)
    _check_layers(pairs, targeting.config, base, path)
    if base is not None and base.known:
        for name, pair in pairs.items():
            _check_width(name, pair, base, path)
        missing = [name for name in base.modules if name not in pairs and targeting.adapts(name)]
        if missing:
            _refuse(
                path,
                f"adapter_config.json names '{missing[0]}' ({len(missing)} in all), for which there are no tensors",
                missing[0],
            )
    return pairs


def gram(tensor: Tensor) -> NDArray[np.float64]:
    """Give A @ A.T, or B.T @ B: r x r either way."""
    total = np.zeros((tensor.shape[0 if tensor.half == "A" else 1],) * 2)
    for block in tensor.blocks():
        total += block @ block.T if tensor.half == "A" else block.T @ block
        if block.flags.writeable:  # a copy, which would keep the values as it is freed
            block.fill(0)
    return total


def _module(name: str, pair: Pair, scaling: float, path: str) -> ModuleFacts:
    a, b = pair
    with np.errstate(all="ignore"):  # what overflows is refused just below
        squared = float(np.sum(gram(a) * gram(b)))
    if not math.isfinite(squared):
        msg = f"'{name}' of adapter '{path}' holds values whose product overflows; publish the adapter as trained."
        raise MalformedTensors(msg, path=path, module=name)
    norm = scaling * math.sqrt(max(squared, 0.0))  # rounding may leave the square of a zero product just below zero
    return ModuleFacts(module=name, rank=a.shape[0], scaling=scaling, norm=norm, in_features=a.shape[1], out_features=b.shape[0])


def _pairs(table: TensorTable, path: str) -> dict[str, Pair]:
    halves: dict[str, dict[str, Tensor]] = {}
    for tensor in table.tensors.values():
        if tensor.half in halves.setdefault(tensor.module, {}):
            _refuse(path, f"'{tensor.module}' has two lora_{tensor.half}, under two spellings", tensor.module)
        halves[tensor.module][tensor.half] = tensor
    for name, pair in halves.items():
        if len(pair) != 2 or pair["A"].embedding != pair["B"].embedding:  # noqa: PLR2004 - A and B
            _refuse(path, f"'{name}' has no pair of lora_A and lora_B", name)
    ordered = sorted(halves, key=lambda name: (layer_of(name) if layer_of(name) is not None else -1, name))
    return {name: (halves[name]["A"], halves[name]["B"]) for name in ordered}


def _check_rank(name: str, pair: Pair, targeting: Targeting, path: str) -> None:
    a, b = pair
    if not targeting.adapts(name):
        _refuse(path, f"there are tensors for '{name}', which adapter_config.json does not name", name)
    rank = targeting.rank(name)
    if a.shape[0] != rank or b.shape[1] != rank:
        found = f"lora_A is {a.shape[0]} x {a.shape[1]} and lora_B {b.shape[0]} x {b.shape[1]}"
        hint = "; they look transposed" if a.shape[1] == rank and b.shape[0] == rank else ""
        _refuse(path, f"adapter_config.json gives '{name}' rank {rank}, but {found} (rank x in, out x rank are read){hint}", name)


def _check_layers(pairs: dict[str, Pair], config: AdapterConfig, base: BaseDimensions | None, path: str) -> None:
    present = {layer for name in pairs if (layer := layer_of(name)) is not None}
    named = set(config.layers or ())
    most, whose = (MAX_LAYERS, "no base model has more than") if base is None else (base.layers, "the base model has")
    if beyond := sorted(layer for layer in present | named if layer >= most):
        shown = str(beyond[0])[:12]  # a name may hold a number of hundreds of digits
        _refuse(path, f"layer {shown} does not exist: {whose} {most:,}, numbered from 0", f"layers.{shown}")
    if empty := sorted(named - present):
        _refuse(path, f"adapter_config.json names layer {empty[0]}, for which there are no tensors", f"layers.{empty[0]}")


def _check_width(name: str, pair: Pair, base: BaseDimensions, path: str) -> None:
    a, b = pair
    if name not in base.modules:
        _refuse(path, f"the base model has no module '{name}'", name)
    if a.embedding != name.endswith("embed_tokens"):
        _refuse(path, f"'{name}' has the tensors of {'an embedding' if a.embedding else 'a linear layer'}, which it is not", name)
    found, expected = (a.shape[1], b.shape[0]), base.modules[name]
    if found != expected:
        _refuse(
            path,
            f"'{name}' fits a layer of {found[0]} -> {found[1]}, and the base model's is {expected[0]} -> {expected[1]}",
            name,
        )


def _refuse(path: str, why: str, module: str) -> NoReturn:
    raise ShapeMismatch(
        f"Adapter '{path}' does not fit: {why}. Publish the files as trained, and name that base.", path=path, module=module
    )
