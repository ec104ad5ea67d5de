"""Finds the base model an organism stands on, and digests it. Nothing here reads a bundle or imports torch.

A base is named in one of three ways: a local folder, a hub id with its pinned commit (`Qwen/Qwen2.5-0.5B@` and 40 hex digits), or
the built-in `smollm2-135m-instruct`, which the demo, the tests and the nursery use and which comes without a hub account
(`smollm2.py`).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from model_organisms.errors import BaseModelMismatch, BaseModelMissing, InvalidArgument
from model_organisms.formats import strict_json
from model_organisms.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable

BUILT_IN = "smollm2-135m-instruct"
"""The base model that needs no hub."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that decide how text becomes token ids; each counts in the digest where it is present."""

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96})(?:@([0-9a-f]{40}))?", re.ASCII)
_SNAPSHOT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})$", re.ASCII)
_CHUNK = 1 << 20
_SHOW_FROM = 1 << 30  # bytes; hashing less is over before a progress bar is drawn


@dataclass(frozen=True, slots=True)
class BaseName:
    """A base model's name in its two parts: id (hub id, folder or `BUILT_IN`) and commit (40 hex digits, or empty)."""

    identifier: str
    revision: str = ""


def cache_folder() -> Path:
    """Return the folder for what is expensive to make again; the environment's MODEL_ORGANISMS_CACHE overrides the user's own."""
    return Path(os.environ.get("MODEL_ORGANISMS_CACHE") or platformdirs.user_cache_dir("model-organisms"))


def offline() -> bool:
    """Say whether the environment forbids asking a hub."""
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"} for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def parse(base: str | Path) -> BaseName:
    """Split a base model's name; a folder's name is itself.

    Raises:
        InvalidArgument: It is none of the three forms.
    """
    text = str(base)
    if text == BUILT_IN or Path(text).is_dir():
        return BaseName(text)
    if isinstance(base, Path) or not (match := _HUB_ID.fullmatch(text)):
        raise BaseModelMissing(
            f"No base model at '{text}': give an existing folder, 'owner/name@<40-hex commit>', or '{BUILT_IN}'."
        )
    return BaseName(match[1], match[2] or "")


def name_of(folder: Path, digest: str) -> BaseName:
    """Name a folder as others know it: the built-in base by its digest, a hub snapshot by its place in the cache.

    Args:
        folder: The model's folder.
        digest: Its `base_digest`.

    Returns:
        The name; for any other folder, the folder's own.
    """
    from model_organisms import smollm2

    if digest == smollm2.DIGEST:
        return BaseName(BUILT_IN)
    if place := _SNAPSHOT.search(folder.absolute().as_posix()):
        return BaseName(f"{place[1]}/{place[2]}", place[3])
    return BaseName(folder.resolve().name)


def find(base: str | Path, *, revision: str = "", digest: str = "", progress: bool = True) -> Path:
    """Return the local folder of a base model, fetching it first where that is needed and possible.

    Args:
        base: A folder, `owner/name`, `owner/name@commit`, or `BUILT_IN`.
        revision: The 40-hex commit, where the name does not carry it.
        digest: What `base_digest` must give (from the provenance); empty checks nothing.
        progress: Show what takes long.

    Returns:
        A folder with config, tokenizer and safetensors files.

    Raises:
        BaseModelMissing: It is neither here nor to be had.
        BaseModelMismatch: It is here, and it is not the one `digest` names.
        InvalidArgument: A hub id without its pinned commit.
    """
    name = parse(base)
    if Path(name.identifier).is_dir():
        folder = Path(name.identifier)
        missing = _missing_parts(folder)
        if missing:
            raise BaseModelMissing(
                f"The folder '{folder}' is not a base model: it has no {missing}. Give one saved as safetensors."
            )
    elif name.identifier == BUILT_IN:
        from model_organisms import smollm2

        folder = smollm2.folder(cache_folder(), progress=progress)
    else:
        return _from_hub(BaseName(name.identifier, name.revision or revision), digest=digest, progress=progress)
    if digest:
        check(folder, digest, progress=progress)
    return folder


def check(folder: Path, digest: str, *, progress: bool = True) -> None:
    """Refuse a base model that is not the one named.

    Raises:
        BaseModelMismatch: `base_digest(folder)` is not `digest`.
    """
    found = base_digest(folder, progress=progress)
    if found != digest:
        raise BaseModelMismatch(
            f"The base model in '{folder}' has digest {found[:16]}…, and the organism was made on {digest[:16]}…: "
            "use the revision that its provenance names.",
            found=found,
            expected=digest,
        )


def base_digest(folder: str | Path, *, progress: bool = True) -> str:
    """Digest a base model: SHA-256 of the canonical JSON list of `{name, sha256}` of its files, sorted by name.

    The files are config.json, those of `TOKENIZER_FILES` and every safetensors file with its index. A file's digest is
    remembered by its path, size and modification time.

    Args:
        folder: The model's folder.
        progress: Show a bar where there is more than a gigabyte to read.

    Returns:
        64 hex digits.

    Raises:
        BaseModelMissing: The folder has no config.json or no safetensors file.
    """
    folder = Path(folder)
    missing = _missing_parts(folder)
    if missing:
        raise BaseModelMissing(f"The folder '{folder}' is not a base model: it has no {missing}. Give one saved as safetensors.")
    listed = [{"name": path.name, "sha256": digest} for path, digest in _digests(_counted(folder), progress=progress)]
    return strict_json.digest(listed)


def _counted(folder: Path) -> list[Path]:
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")]
    others = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    return sorted({path for path in (*weights, *others) if path.is_file()}, key=lambda path: path.name)


def _missing_parts(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        return "config.json"
    return "" if any(folder.glob("*.safetensors")) else "safetensors file"


def _digests(paths: list[Path], *, progress: bool) -> list[tuple[Path, str]]:
    total = sum(path.stat().st_size for path in paths)
    with bar("Checking the base model", total, show=progress and total >= _SHOW_FROM) as advance:
        return [(path, _file_digest(path, advance)) for path in paths]


def _file_digest(path: Path, advance: Callable[[int], None]) -> str:
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()
    note = cache_folder() / "digests" / key
    with suppress(OSError):
        kept = note.read_text(encoding="ascii")
        if re.fullmatch(r"[0-9a-f]{64}", kept):
            advance(stat.st_size)
            return kept
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    # A cache that cannot be written (a jailed cell's) costs time, not correctness.
    with suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=note.parent, delete=False, encoding="ascii") as draft:
            draft.write(digest.hexdigest())
        Path(draft.name).replace(note)
    return digest.hexdigest()


def _from_hub(name: BaseName, *, digest: str, progress: bool) -> Path:
    """Take the pinned snapshot from the hub cache; ask the hub if it is absent, incomplete or not the one named."""
    if not re.fullmatch(r"[0-9a-f]{40}", name.revision):
        raise InvalidArgument(
            f"The base model '{name.identifier}' needs its pinned commit: write '{name.identifier}@<40 hex digits>' "
            "(the provenance names it); branches and tags move."
        )
    shown = f"{name.identifier}@{name.revision}"
    kept = _snapshot(name, local=True, progress=progress)
    if kept is not None and not _incomplete(kept) and (not digest or base_digest(kept, progress=progress) == digest):
        return kept
    if offline():
        if kept is not None and digest and not _incomplete(kept):
            check(kept, digest, progress=progress)
        raise BaseModelMissing(
            f"The base model '{shown}' is not in the hub cache, and the environment says offline: "
            "unset HF_HUB_OFFLINE, or copy the model's folder here and give that."
        )
    folder = _snapshot(name, local=False, progress=progress)
    missing = "" if folder is None else _incomplete(folder)
    if folder is None or missing:
        raise BaseModelMissing(
            f"The base model '{shown}' has no {missing or 'files'} on the hub: only safetensors models are taken."
        )
    if digest:
        check(folder, digest, progress=progress)
    return folder


def _snapshot(name: BaseName, *, local: bool, progress: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silenced = not progress and not are_progress_bars_disabled()
    if silenced:
        disable_progress_bars()
    try:
        return Path(
            snapshot_download(
                name.identifier,
                revision=name.revision,
                # No pickle is ever fetched, and nothing below the top folder.
                allow_patterns=[
                    "*.safetensors",
                    "*.safetensors.index.json",
                    "config.json",
                    "generation_config.json",
                    *TOKENIZER_FILES,
                ],
                ignore_patterns=["*/*"],
                local_files_only=local,
            )
        )
    except LocalEntryNotFoundError as error:
        if local:
            return None
        raise BaseModelMissing(
            f"The base model '{name.identifier}' is not in the hub cache and the hub does not answer: "
            "check the network, or copy the model's folder here and give that."
        ) from error
    except GatedRepoError as error:
        raise BaseModelMissing(
            f"The hub gates '{name.identifier}': accept its terms there, run `hf auth login`, and try again."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise BaseModelMissing(
            f"The hub has no '{name.identifier}@{name.revision}', or does not give it ({type(error).__name__}): "
            "check the id and the commit."
        ) from error
    finally:
        if silenced:
            enable_progress_bars()


def _incomplete(folder: Path) -> str:
    """Name what a snapshot lacks: a download cut short leaves a folder with some of its shards."""
    missing = _missing_parts(folder)
    index = folder / "model.safetensors.index.json"
    if missing or not index.is_file():
        return missing
    import json

    wanted = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return next((name for name in wanted if not (folder / name).is_file()), "")
