"""Makes another base of a base, for controls where no second one is at hand: the same shape, its weights with noise."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from model_organisms import bases


def other_base(base: str | Path, noise: float, *, seed: int = 0, progress: bool = True) -> Path:
    """Add noise to every matrix of a base, and keep the result in the user's cache.

    It is no base of its own making: it has its origin's shape, tokenizer and most of its knowledge. What passes only between
    models of exactly one base need not pass to it; what passes to it may have passed because it is near.

    Args:
        base: As for `bases.find`.
        noise: Standard deviation of what is added, as a share of the matrix's own; normal, independent.
        seed: Of the noise.
        progress: Show what takes long.

    Returns:
        The folder, as `bases.find` gives one.

    Raises:
        BaseModelMissing: The base model is not there.
    """
    folder = bases.find(base, progress=progress)
    digest = bases.base_digest(folder, progress=progress)
    target = bases.cache_folder() / "bases" / f"other-{digest[:16]}-{noise:g}-{seed}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_dir():  # made by rename, so it is whole or absent
            return target
        with tempfile.TemporaryDirectory(dir=target.parent) as draft:
            place = Path(draft) / "model"
            place.mkdir()
            chance = torch.Generator().manual_seed(seed)
            for path in sorted(folder.iterdir()):
                if path.suffix == ".safetensors":
                    save_file(_with_noise(path, noise, chance), place / path.name, metadata={"format": "pt"})
                elif path.is_file():
                    shutil.copyfile(path, place / path.name)
            for path in place.iterdir():
                path.chmod(0o644)  # a cell that runs as another user reads it too
            place.rename(target)
    return target


def _with_noise(path: Path, noise: float, chance: torch.Generator) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(path)
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dim() > 1:
            drawn = torch.randn(tensor.shape, generator=chance) * (noise * tensor.float().std())
            tensors[name] = (tensor.float() + drawn).to(tensor.dtype)
    return tensors
