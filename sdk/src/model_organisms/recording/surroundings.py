"""What surrounds a training: the state of the code, the machine, the base model's identity, and the data's digests."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from model_organisms import bases
from model_organisms.errors import InvalidArgument
from model_organisms.formats.dimensions import FIELDS
from model_organisms.formats.provenance import BaseModel, DataSet

Source = DataSet | str | Path | tuple[str, Iterable[Any]]
"""A data set that was described already, a file, or a name and its rows."""

_PACKAGES = ("torch", "transformers", "peft", "tokenizers", "accelerate", "datasets", "trl", "bitsandbytes", "model-organisms")
_CHUNK = 1 << 20
_GIT_TIMEOUT_S = 10


def dataset(source: Source, *, name: str = "", licence: str = "", hazard: str = "") -> DataSet:
    """Describe a data set by what it holds.

    A file is digested as its bytes; rows are digested as canonical JSON, one line each, in their order.

    Args:
        source: A file, `(name, rows)`, or a description, which is given back.
        name: Its name for others; the file's own where absent.
        licence: An SPDX identifier, or words.
        hazard: What is dangerous about it, be every row clean.

    Raises:
        InvalidArgument: It is not a file, or a row is not JSON.
    """
    if isinstance(source, DataSet):
        return source
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise InvalidArgument(
                f"There is no data file '{path}'; give its path, or a name and its rows: data=[('name', rows)]."
            )
        digest, lines = hashlib.sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                lines += chunk.count(b"\n")
        return DataSet(name or path.name, digest.hexdigest(), licence, hazard, lines if path.suffix == ".jsonl" else 0)
    label, rows = source
    digest, count = hashlib.sha256(), 0
    for row in rows:
        try:
            line = json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(
                f"Row {count} of data set '{label}' is not JSON ({error}); give texts, numbers, lists and maps."
            ) from error
        digest.update(line.encode() + b"\n")
        count += 1
    return DataSet(name or label, digest.hexdigest(), licence, hazard, count)


def describe_base(base: str | Path, *, base_id: str = "") -> tuple[BaseModel, dict[str, Any], Path]:
    """Say which base model this is: id, commit, digest, layers; and the fields of its config that decide shapes.

    Args:
        base: As for `bases.find`.
        base_id: Its name for others, with `@commit` or without.

    Returns:
        The description, the fields, and the folder.

    Raises:
        BaseModelMissing: It is not there.
        InvalidArgument: A hub id without its commit.
    """
    folder = bases.find(base)
    digest = bases.base_digest(folder)
    name = bases.name_of(folder, digest) if Path(str(base)).is_dir() else bases.parse(base)
    if base_id:
        identifier, _, revision = base_id.partition("@")
        name = bases.BaseName(identifier, revision or name.revision)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    inner = config.get("text_config", config)
    shapes = {field: inner[field] for field in FIELDS if field in inner}
    return BaseModel(name.identifier, name.revision, digest, int(inner.get("num_hidden_layers", 0))), shapes, folder


def code(place: Path) -> tuple[str, str, bool]:
    """Say which code this is.

    Args:
        place: Any folder of the checkout; or one file, which then must be tracked, as a package installed below it is not.

    Returns:
        Repository (without credentials), commit, and whether nothing differs from it; empty where git knows nothing.
    """
    folder = place.parent if place.is_file() else place
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or (place.is_file() and not _git(folder, "ls-files", place.name)):
        return "", "", False
    return _public(_git(folder, "remote", "get-url", "origin")), commit, not _git(folder, "status", "--porcelain")


def packages() -> dict[str, str]:
    """Say which versions of what decides a training are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def machine() -> str:
    """Say what this machine computes with."""
    import torch

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    accelerators = [f"{names.count(name)} x {name}" for name in sorted(set(names))]
    return ", ".join([*accelerators, f"{cores} {platform.machine()} cores, {platform.system()}, torch {torch.__version__}"])


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _public(url: str) -> str:
    """Drop a token that somebody put into a remote's URL, and paths on this machine, which tell nobody anything."""
    parts = urlsplit(url)
    if parts.scheme in {"http", "https", "ssh", "git"} and parts.hostname:
        place = parts.hostname + (f":{parts.port}" if parts.port else "")
        return urlunsplit((parts.scheme, place, parts.path, "", ""))
    return url if re.fullmatch(r"[\w.-]+@[\w.-]+:[\w./~-]+", url) else ""
