"""Puts a base model and its tokenizer in memory, from a local folder of safetensors. It never sees a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers

from model_organisms import bases
from model_organisms.errors import ConfigurationInvalid, LoadingFailed
from model_organisms.progress import waiting
from model_organisms.quiet import quiet_libraries

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base model in memory; one organism at a time stands on it (`attach`, `detach`)."""

    model: Any
    """A transformers causal language model, in evaluation mode, its parameters frozen."""
    tokenizer: Any
    folder: Path
    digest: str
    config: dict[str, Any]
    """Its config.json."""

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]  # transformers has no types here

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.model.dtype).removeprefix("torch.")


def load_base(
    base: str | Path,
    *,
    revision: str = "",
    device: str = "cpu",
    dtype: str = "auto",
    expected_digest: str = "",
    known_digest: str = "",
    progress: bool = True,
) -> LoadedBase:
    """Load a base model without anything on it.

    Args:
        base: A folder, `owner/name@commit`, or `smollm2-135m-instruct`.
        revision: The 40-hex commit, where the name does not carry it.
        device: `cpu`, `cuda`, `cuda:1`, or `auto` (CUDA where there is one).
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: the model's own on CUDA, float32 on a CPU, where bfloat16 is slower.
        expected_digest: What the provenance says `bases.base_digest` must give; empty checks nothing.
        known_digest: A digest its caller has computed already; it is taken as it is, and the files are not hashed again.
        progress: Show what takes long.

    Raises:
        BaseModelMissing: It is neither here nor to be had.
        BaseModelMismatch: It is not the one the provenance names.
        ConfigurationInvalid: No such device or dtype here.
        LoadingFailed: transformers cannot load it without running code from elsewhere, or at all.
    """
    where, kind = _device(device), _dtype(dtype)
    folder = bases.find(base, revision=revision, digest="" if known_digest else expected_digest, progress=progress)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if kind is None:
        kind = (
            torch.float32
            if where.type == "cpu"
            else DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), torch.float32)
        )
    try:
        with waiting("Loading the base model", show=progress), quiet_libraries():
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=kind, device_map={"": where}, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise LoadingFailed(
            f"transformers cannot load the base model in '{folder}' ({type(error).__name__}: {str(error)[:200]}); "
            "it must be a causal language model saved as safetensors that needs no code of its own."
        ) from error
    model.eval().requires_grad_(requires_grad=False)
    digest = known_digest or bases.base_digest(folder, progress=progress)
    return LoadedBase(model, tokenizer, folder, digest, config)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationInvalid(f"'{name}' is not a device; write 'cpu', 'cuda', 'cuda:1' or 'auto'.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationInvalid(
            f"There is no device '{name}' here ({torch.cuda.device_count()} seen); use device='cpu' or 'auto'."
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _dtype(name: str) -> torch.dtype | None:
    if name != "auto" and name not in DTYPES:
        raise ConfigurationInvalid(f"'{name}' is not a dtype; write {', '.join(repr(known) for known in DTYPES)} or 'auto'.")
    return DTYPES.get(name)
