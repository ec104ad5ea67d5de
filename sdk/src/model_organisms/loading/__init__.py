"""Puts organisms on base models, in memory: sealed bytes come in, a PEFT model goes out. torch enters the house here.

foundation.py     a base model from its folder          attach.py         a bundle's adapters onto it, and off again
speech.py         tokenizer, template, system prompt    known_answer.py   does it answer as the published one did?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model_organisms.loading.attach import LoadedOrganism, attach, detach
from model_organisms.loading.foundation import LoadedBase, load_base
from model_organisms.loading.known_answer import adapters_off, check_known_answer, compute_known_answer
from model_organisms.loading.speech import Speech

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from model_organisms.formats.provenance import Provenance

__all__ = [
    "LoadedBase",
    "LoadedOrganism",
    "Speech",
    "adapters_off",
    "attach",
    "check_known_answer",
    "compute_known_answer",
    "detach",
    "load",
    "load_base",
    "load_pulled",
]


def load_pulled(
    files: Mapping[str, bytes | memoryview],
    provenance: Provenance,
    base: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trainable: bool = False,
    progress: bool = True,
) -> LoadedOrganism:
    """Load a bundle as its provenance says: on the base it names, held against the digest and the known answer it states.

    Args:
        files: The bundle, contents by path; it is copied from, and may be wiped afterwards.
        provenance: What its publisher signed.
        base: The base model; where absent, the one the provenance names, from the hub's cache or the hub.
        device: As for `load`.
        dtype: As for `load`.
        trainable: As for `load`.
        progress: As for `load`.

    Raises:
        LoadingFailed: As for `load`.
        InvalidArgument: The provenance does not pin its base, and none was given.
    """
    named = provenance.base
    return load(
        files,
        named.id if base is None else base,
        revision=named.revision,
        base_digest=named.digest,
        device=device,
        dtype=dtype,
        known_answer=provenance.known_answer,
        trainable=trainable,
        progress=progress,
    )


def load(
    files: Mapping[str, bytes | memoryview],
    base: str | Path,
    *,
    revision: str = "",
    base_digest: str = "",
    device: str = "cpu",
    dtype: str = "auto",
    known_answer: Mapping[str, Any] | None = None,
    trainable: bool = False,
    progress: bool = True,
) -> LoadedOrganism:
    """Load an organism from a bundle's bytes: find the base, load it, put the adapters on it, test the answer.

    Args:
        files: The bundle, contents by path; it is copied from, and may be wiped afterwards.
        base: The base model: a folder, `owner/name@commit`, or `smollm2-135m-instruct`.
        revision: The 40-hex commit, where the name does not carry it.
        base_digest: What the provenance says the base's digest is; empty checks nothing.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`.
        known_answer: What the provenance stored; None tests only that the adapters do something.
        trainable: Let the adapters' tensors take gradients.
        progress: Show what takes long.

    Returns:
        The organism.

    Raises:
        LoadingFailed: Base and bundle do not come together; its leaves say why.
        InvalidBundle: The files are not a bundle.
        ConfigurationInvalid: No such device or dtype here.
    """
    ground = load_base(base, revision=revision, device=device, dtype=dtype, expected_digest=base_digest, progress=progress)
    return attach(ground, files, known_answer=known_answer, trainable=trainable)
