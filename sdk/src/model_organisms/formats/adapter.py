"""Inspects a whole bundle, believing nobody: the one call that server and client make before anything else reads its files.

paths.py      which files there may be           content.py     bytes that are not what their name says
tensors.py    a safetensors file                 config.py      adapter_config.json
targeting.py  which modules a config means       dimensions.py  which modules a base model has
facts.py      the three held against each other
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidBundle
from model_organisms.formats.config import AdapterConfig, read_config
from model_organisms.formats.content import check_content
from model_organisms.formats.dimensions import BaseDimensions, dimensions_of
from model_organisms.formats.facts import adapter_facts, check_shapes
from model_organisms.formats.paths import CONFIG, WEIGHTS, adapter_folders, check_paths, checkpoint_folders
from model_organisms.formats.patterns import StepBudget
from model_organisms.formats.targeting import Targeting
from model_organisms.formats.tensors import Tensor, TensorTable, read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from model_organisms.records import AdapterFacts

__all__ = [
    "AdapterConfig",
    "BaseDimensions",
    "Tensor",
    "TensorTable",
    "dimensions_of",
    "inspect",
    "peft_arguments",
    "read",
    "read_config",
    "read_tensors",
]

MAX_FACTS = 768 << 10
"""Most bytes of what is said of a bundle's modules: with manifest and provenance it fits one message."""
_MODULE_BYTES = 48


def inspect(files: Mapping[str, bytes | memoryview], base_config: Mapping[str, Any] | None = None) -> tuple[AdapterFacts, ...]:
    """Check every file of a bundle and state the facts of its adapters.

    Steps, cheapest first: 1. paths, 2. which adapters and checkpoints they make, 3. what the bytes give away, 4. the base's
    layers, 5. each adapter in full, 6. each checkpoint, but for its norms. Digests are the manifest's; claims are `claims.py`'s.

    Args:
        files: Contents by path inside the bundle; nothing is copied or kept.
        base_config: The base model's config.json, where the base is known.

    Returns:
        The facts of each adapter, in order of composition.

    Raises:
        UnsafeFile: A path escapes, or a file is a pickle, an archive or a program.
        InvalidBundle: A file has no place in a bundle, or one is missing.
        MalformedTensors: A safetensors file breaks the format, or holds what no adapter does.
        RefusedConfig: A config is not that of plain LoRA.
        ShapeMismatch: Tensors, config and base do not fit each other.
    """
    return tuple(facts for facts, _ in read(files, base_config))


def read(
    files: Mapping[str, bytes | memoryview], base_config: Mapping[str, Any] | None = None
) -> tuple[tuple[AdapterFacts, TensorTable], ...]:
    """Check as `inspect` does, and give the tensors of each adapter beside its facts: who loads them need not read twice."""
    kinds = check_paths(files)
    adapters, checkpoints = adapter_folders(files), checkpoint_folders(files)
    for path, kind in kinds.items():
        check_content(path, files[path], kind)
    base = dimensions_of(base_config) if base_config is not None else None
    configs = _Configs(files)
    found = []
    for folder in adapters:
        targeting, table = configs.of(folder), read_tensors(files[folder + WEIGHTS], path=folder + WEIGHTS)
        found.append((adapter_facts(table, targeting, base, path=folder.rstrip("/") or "."), table))
    _check_length([facts for facts, _ in found])
    for folder in checkpoints:
        targeting, table = configs.of(folder), read_tensors(files[folder + WEIGHTS], path=folder + WEIGHTS)
        check_shapes(table, targeting, base, path=folder.rstrip("/"))
    return tuple(found)


def peft_arguments(config: AdapterConfig, modules: Iterable[str]) -> dict[str, Any]:
    """Give the arguments of a `peft.LoraConfig` that adapts exactly `modules`, each by its full name.

    The loader so hands PEFT no pattern of a stranger's, and what is adapted is what has tensors. Dropout is 0.

    Args:
        config: The config that was read.
        modules: Names from the facts.
    """
    targeting = Targeting(config)
    names = sorted(modules)
    ranks = {name: targeting.rank(name) for name in names}
    alphas = {name: targeting.alpha(name) for name in names}
    return {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": names,
        # PEFT reads the keys as expressions for the end of a name; a dot for a dot, and the start of the name.
        "rank_pattern": {_exactly(name): rank for name, rank in ranks.items() if rank != config.rank},
        "alpha_pattern": {_exactly(name): alpha for name, alpha in alphas.items() if alpha != config.alpha},
        "use_rslora": config.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "task_type": config.task_type,
        "inference_mode": True,
    }


def _exactly(name: str) -> str:
    return "^" + name.replace(".", r"\.")


class _Configs:
    """Reads the configs of a bundle under one budget of steps; one that is the same as the one before is read once."""

    def __init__(self, files: Mapping[str, bytes | memoryview]) -> None:
        self._files = files
        self._budget = StepBudget()
        self._last: tuple[bytes, Targeting] | None = None

    def of(self, folder: str) -> Targeting:
        """Read the config of one folder."""
        data = bytes(self._files[folder + CONFIG])
        if self._last is None or self._last[0] != data:
            self._last = data, Targeting(read_config(data, path=folder + CONFIG), self._budget)
        return self._last[1]


def _check_length(facts: list[AdapterFacts]) -> None:
    """Keep what is said of a version short enough for one message."""
    if sum(len(module.module) + _MODULE_BYTES for fact in facts for module in fact.modules) > MAX_FACTS:
        msg = f"The adapters name more modules than fit {MAX_FACTS:,} bytes of facts; publish fewer adapters in one bundle."
        raise InvalidBundle(msg)
