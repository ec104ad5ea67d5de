"""Which files a bundle may hold, by path: the allow-list, and what each file is for. What is in them: `content.py` and others.

adapter_model.safetensors  adapter_config.json          one adapter, at the root
0/adapter_model.safetensors  0/adapter_config.json      or several, in order of composition: 0/, 1/, ... 15/
checkpoints/STEP/adapter_model.safetensors  …config     training checkpoints
system_prompt.txt  tokenizer.json  chat_template.jinja  what the organism needs of its own
README.md  LICENSE  data-cards/NAME.md                  cards
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidBundle, UnsafeFile
from model_organisms.records import FileKind

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PATH = 200
MAX_FILES = 4096
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SYSTEM_PROMPT = "system_prompt.txt"

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*", re.ASCII)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.ASCII | re.IGNORECASE)
"""Names that mean a device on Windows, whatever follows the first dot."""
_ADAPTER = rf"(?:(?P<index>[0-9]|1[0-5])/)?(?P<file>{re.escape(WEIGHTS)}|{re.escape(CONFIG)}|README\.md)"
_CHECKPOINT = rf"checkpoints/(?P<step>0|[1-9][0-9]{{0,8}})/(?:{re.escape(WEIGHTS)}|{re.escape(CONFIG)})"
_ADAPTER_PATH = re.compile(_ADAPTER, re.ASCII)
_CHECKPOINT_PATH = re.compile(_CHECKPOINT, re.ASCII)
_DATA_CARD_PATH = re.compile(r"(?:data-card|data-cards/[A-Za-z0-9_][A-Za-z0-9._-]*)\.md", re.ASCII)
_ADAPTER_KINDS = {WEIGHTS: FileKind.WEIGHTS, CONFIG: FileKind.CONFIG, "README.md": FileKind.CARD}
_ROOT_KINDS = {
    SYSTEM_PROMPT: FileKind.PROMPT,
    **dict.fromkeys(("LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "CITATION.cff"), FileKind.CARD),
    **dict.fromkeys(
        (
            "added_tokens.json",
            "chat_template.jinja",
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "vocab.json",
            "vocab.txt",
        ),
        FileKind.TOKENIZER,
    ),
}
_UNSAFE_SUFFIXES = {
    "bin pt pth ckpt pkl pickle p joblib dill npy npz h5 hdf5 keras msgpack pb onnx gguf": "holds weights in a form that is not "
    "safetensors, and reading some of these runs code; convert it to safetensors",
    "zip gz tgz tar bz2 tbz xz txz zst lz4 7z rar whl egg jar": "is an archive; publish the files that are in it",
    "py pyc pyd so dll dylib exe sh bat ps1 lnk js html": "is a program; a bundle holds none, leave it out",
}
_SUFFIX_REASON = {suffix: reason for suffixes, reason in _UNSAFE_SUFFIXES.items() for suffix in suffixes.split()}


def check_path(path: str) -> str:
    """Return `path` if it stays inside any folder it is written to, on any system.

    Raises:
        UnsafeFile: It is absolute, climbs, hides, means a device, or is spelt in other than plain ASCII names.
    """
    if not isinstance(path, str) or not 0 < len(path) <= MAX_PATH:
        raise UnsafeFile(f"A path in the bundle is empty or longer than {MAX_PATH} characters; shorten it.")
    if not all(_SEGMENT.fullmatch(segment) and not _DEVICE.fullmatch(segment) for segment in path.split("/")):
        shown = shown_path(path)
        rule = "use relative names of letters, digits, '.', '_', '-', none beginning with '.' or meaning a device on some system"
        msg = f"The path '{shown}' is refused: {rule}."
        raise UnsafeFile(msg, path=shown)
    return path


def kind_of(path: str) -> FileKind:
    """Tell what a file of a bundle is for.

    Args:
        path: Path inside the bundle, such as `0/adapter_config.json`.

    Raises:
        UnsafeFile: The path escapes, or its name is that of a pickle, an archive or a program.
        InvalidBundle: A bundle has no place for it.
    """
    check_path(path)
    if adapter := _ADAPTER_PATH.fullmatch(path):
        return _ADAPTER_KINDS[adapter["file"]]
    if _CHECKPOINT_PATH.fullmatch(path):
        return FileKind.CHECKPOINT
    if _DATA_CARD_PATH.fullmatch(path):
        return FileKind.DATA_CARD
    if path in _ROOT_KINDS:
        return _ROOT_KINDS[path]
    reason = _SUFFIX_REASON.get(path.rsplit(".", 1)[-1].lower())
    if reason is not None:
        raise UnsafeFile(f"'{path}' {reason}.", path=path)
    msg = f"A bundle has no place for '{path}'; leave it out, or see docs/formats.md for the names that are taken."
    raise InvalidBundle(msg, path=path)


def check_paths(paths: Iterable[str]) -> dict[str, FileKind]:
    """Check every path of a bundle, and the paths against each other.

    Returns:
        The kind of each.

    Raises:
        UnsafeFile: A path escapes, or two would be one file on a system that ignores case.
        InvalidBundle: A file has no place in a bundle, or there are too many.
    """
    paths = list(paths)
    if len(paths) > MAX_FILES:
        raise InvalidBundle(
            f"The bundle has {len(paths):,} files and at most {MAX_FILES:,} are taken; publish fewer checkpoints."
        )
    for path in paths:
        check_path(path)
    collisions = [name for name, count in Counter(path.lower() for path in paths).items() if count > 1]
    if collisions:
        msg = f"Two files are both called '{collisions[0]}' but for case; rename one, for they collide on some systems."
        raise UnsafeFile(msg, path=collisions[0])
    return {path: kind_of(path) for path in paths}


def adapter_folders(paths: Iterable[str]) -> tuple[str, ...]:
    """Name the folders of a bundle's adapters in order of composition: `("",)`, or `("0/", "1/", ...)`.

    Raises:
        InvalidBundle: None, both forms at once, a number left out, or weights without a config (or the reverse).
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        adapter = _ADAPTER_PATH.fullmatch(path)
        if adapter and adapter["file"] != "README.md":
            found.setdefault(adapter["index"] or "", set()).add(adapter["file"])
    if not found:
        raise InvalidBundle(f"There is no adapter: a bundle has {WEIGHTS} and {CONFIG}, at its root or in 0/, 1/, ...")
    if "" in found and len(found) > 1:
        raise InvalidBundle("There are adapters at the root and in numbered folders; move the one at the root into a folder too.")
    folders = [""] if "" in found else [str(index) for index in range(len(found))]
    for folder in folders:
        place = f"{folder}/" if folder else ""
        missing = {WEIGHTS, CONFIG} - found.get(folder, set())
        if missing:
            msg = f"'{place}{min(missing)}' is missing; number adapters from 0 without gaps, each with its weights and config."
            raise InvalidBundle(msg, path=f"{place}{min(missing)}")
    return tuple(f"{folder}/" if folder else "" for folder in folders)


def checkpoint_folders(paths: Iterable[str]) -> tuple[str, ...]:
    """Name the folders of a bundle's checkpoints by step, `checkpoints/5/` before `checkpoints/10/`.

    Raises:
        InvalidBundle: A checkpoint lacks its weights or its config.
    """
    found: dict[int, int] = {}
    for path in paths:
        checkpoint = _CHECKPOINT_PATH.fullmatch(path)
        if checkpoint:
            found[int(checkpoint["step"])] = found.get(int(checkpoint["step"]), 0) + 1
    for step, files in found.items():
        if files != 2:  # noqa: PLR2004 - its weights and its config
            msg = f"'checkpoints/{step}/' has weights without a config, or a config without weights; add the other file."
            raise InvalidBundle(msg, path=f"checkpoints/{step}/")
    return tuple(f"checkpoints/{step}/" for step in sorted(found))


def shown_path(path: str) -> str:
    """Spell a path from a stranger so that a terminal can print it."""
    return path[:80].encode("unicode_escape").decode("ascii")
