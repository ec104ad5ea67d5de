"""Which files of a repository become which of a bundle, and why the others are left out. Names alone; no byte is read here.

adapter_model.safetensors, adapter_config.json     as they are
checkpoint-40/…  checkpoints/checkpoint-40/…       checkpoints/40/…
tokenizer.json, chat_template.jinja, LICENSE …     as they are, where a bundle has a place for them
trainer_state.json                                 read for its curves, and not kept
*.bin, *.pt and whatever else runs code            refused by name, and never fetched
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidBundle, UnsafeFile
from model_organisms.formats.paths import CONFIG, WEIGHTS, kind_of, shown_path
from model_organisms.records import FileKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CARD = "README.md"
TRAINER_STATE = "trainer_state.json"

_CHECKPOINT = re.compile(
    rf"(?:checkpoints/)?(?:checkpoint[-_]|(?<=checkpoints/))(?P<step>[0-9]{{1,9}})/(?P<file>{re.escape(WEIGHTS)}|{re.escape(CONFIG)})",
    re.ASCII,
)
_STATE = re.compile(rf"(?:(?:checkpoints/)?checkpoint[-_](?P<step>[0-9]{{1,9}})/)?{re.escape(TRAINER_STATE)}", re.ASCII)
_PICKLED = re.compile(
    r"(?:^|/)(?:adapter_model|pytorch_model|steering_vector|model)[^/]*\.(?:bin|pt|pth|ckpt|pkl|pickle)$", re.ASCII
)
_WHOLE = re.compile(r"model(?:-\d+-of-\d+)?\.safetensors", re.ASCII)
_NUMBERED = re.compile(r"(?:\d+/|checkpoints/)", re.ASCII)


class Part(StrEnum):
    """What may be left out on request."""

    CHECKPOINTS = "checkpoints"
    TOKENIZER = "tokenizer"


@dataclass(frozen=True, slots=True)
class Arrangement:
    """What is taken of a repository."""

    taken: Mapping[str, str]
    """Path in the bundle: path in the repository. Two may come from one file."""
    left_out: Mapping[str, str]
    """Path in the repository: why it is left out."""
    state: str = ""
    """The newest `trainer_state.json`; empty where there is none."""
    lent: tuple[int, ...] = field(default=())
    """Steps of checkpoints without a config of their own, which get the adapter's."""


def arrange(paths: Iterable[str], *, folder: str = "", without: Iterable[Part] = ()) -> Arrangement:
    """Choose the files of one adapter.

    Steps: 1. no name climbs out, 2. each file has its place or a reason, 3. checkpoints have two files each, 4. there is an
    adapter; if not, what there is instead is named.

    Args:
        paths: All files of the repository.
        folder: Where in it the adapter lies; empty for its root.
        without: What to leave out.

    Raises:
        UnsafeFile: A name climbs out of a folder, or there are pickles only.
        InvalidBundle: There is no adapter: the repository is empty, or holds a whole model, or several adapters in folders.
    """
    paths, excluded = list(paths), frozenset(without)
    for path in paths:
        _check(path)
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in paths if path.startswith(prefix)]
    taken: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for path in inside:
        place, reason = _place(path.removeprefix(prefix), excluded)
        if reason or place in taken:
            left_out[path] = reason or f"'{taken[place]}' has its place already"
        else:
            taken[place] = path
    if prefix and CARD not in taken and CARD in paths:
        taken[CARD] = CARD  # the card of the whole repository speaks of its folders
    if {WEIGHTS, CONFIG} - taken.keys():
        _no_adapter(taken, left_out, inside, folder)
    return Arrangement(*_completed(taken, left_out), _newest(inside, prefix), _lent(taken))


def _check(path: str) -> None:
    """No honest repository has such names; a hub that lists one is not believed in anything."""
    if set(path.split("/")) & {"", ".", ".."} or "\\" in path or not path.isprintable():
        raise UnsafeFile(f"The hub lists the path '{shown_path(path)}', which climbs out or hides; nothing was fetched.")


def _place(path: str, without: frozenset[Part]) -> tuple[str, str]:
    """Give a file's path in the bundle, or why it has none."""
    if checkpoint := _CHECKPOINT.fullmatch(path):
        place = f"checkpoints/{int(checkpoint['step'])}/{checkpoint['file']}"
        return ("", "checkpoints were not asked for") if Part.CHECKPOINTS in without else (place, "")
    try:
        kind = kind_of(path)
    except UnsafeFile as error:
        return "", error.message if error.message.startswith("'") else "its name has no place in a bundle"
    except InvalidBundle:
        return "", "its curves are read, the file is not kept" if _STATE.fullmatch(path) else "a bundle has no place for it"
    reason = "it belongs to another adapter; import that by its folder" if _NUMBERED.match(path) else ""
    if kind is FileKind.TOKENIZER and Part.TOKENIZER in without:
        reason = "tokenizer and chat template were not asked for"
    return ("", reason) if reason else (path, "")


def _completed(taken: dict[str, str], left_out: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Drop checkpoints without weights; those without a config have the adapter's, from the same training."""
    for place in [place for place in taken if place.startswith("checkpoints/")]:
        step = place.rsplit("/", 1)[0]
        if f"{step}/{WEIGHTS}" not in taken:
            left_out[taken.pop(place)] = "there are no safetensors beside it"
        else:
            taken.setdefault(f"{step}/{CONFIG}", taken[CONFIG])
    return dict(sorted(taken.items())), dict(sorted(left_out.items()))


def _lent(taken: Mapping[str, str]) -> tuple[int, ...]:
    own = taken[CONFIG]
    return tuple(sorted(int(place.split("/")[1]) for place in taken if place.startswith("checkpoints/") and taken[place] == own))


def _newest(paths: Iterable[str], prefix: str) -> str:
    """The state at the root was written last; then the one of the last checkpoint."""
    steps = [
        (-1 if found["step"] else 0, int(found["step"] or 0), path)
        for path in paths
        if (found := _STATE.fullmatch(path.removeprefix(prefix)))
    ]
    return max(steps)[2] if steps else ""


def _no_adapter(taken: Mapping[str, str], left_out: Mapping[str, str], inside: list[str], folder: str) -> None:
    """Say what there is where no adapter is."""
    where = f"The folder '{folder}'" if folder else "The repository"
    pickles = sorted(path for path in left_out if _PICKLED.search(path))
    below = sorted(path.rsplit("/", 1)[0] for path in inside if path.endswith(f"/{WEIGHTS}") and path not in taken.values())
    if WEIGHTS in taken:
        raise InvalidBundle(f"{where} has {WEIGHTS} and no {CONFIG}, so nothing says how it is applied; ask its owner for it.")
    if pickles:
        shown = ", ".join(map(shown_path, pickles[:3]))
        msg = f"{where} has its weights as a pickle only ({shown}), and reading one runs code; ask its owner for safetensors."
        raise UnsafeFile(msg, path=shown_path(pickles[0]))
    if any(_WHOLE.fullmatch(path.rsplit("/", 1)[-1]) for path in inside):
        raise InvalidBundle(
            f"{where} holds a whole model; this registry keeps adapters. Publish the LoRA that was trained, not its merge."
        )
    if below:
        shown = ", ".join(map(shown_path, below[:5]))
        raise InvalidBundle(f"{where} holds adapters in folders ({shown}); import one as hf://owner/name@commit/FOLDER.")
    raise InvalidBundle(f"{where} is empty: no adapter in {len(inside)} files. Its siblings may hold it, or another revision.")
