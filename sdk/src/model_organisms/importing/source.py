"""Where on a model hub something comes from: `hf://owner/name@revision/folder`, read and printed. Nothing here asks a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard
from urllib.parse import quote, unquote

from model_organisms.errors import InvalidArgument, UnsafeFile
from model_organisms.formats.paths import check_path

_REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_SOURCE = re.compile(
    rf"hf://(?P<repository>{_REPOSITORY})(?:@(?P<revision>[A-Za-z0-9_.%-]{{1,200}}))?(?:/(?P<folder>[^@]+))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}", re.ASCII)
_WRITTEN = "hf://owner/name, hf://owner/name@<40-hex commit>, or hf://owner/name@<commit>/folder"


@dataclass(frozen=True, slots=True)
class Source:
    """A model repository, or one folder of it, at a revision."""

    repository: str
    """`owner/name`."""
    revision: str = ""
    """A commit, a branch or a tag; empty means the default branch."""
    folder: str = ""
    """Where in it the adapter lies; empty means at its root."""

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, so that it means the same tomorrow."""
        return bool(_COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        """Print it as `parse` reads it."""
        revision = f"@{quote(self.revision, safe='')}" if self.revision else ""
        return f"hf://{self.repository}{revision}{f'/{self.folder}' if self.folder else ''}"


def parse(text: str) -> Source:
    """Read where something comes from.

    Args:
        text: `hf://owner/name`, with `@revision` and `/folder` where they are wanted; a slash in a revision is written `%2F`.

    Raises:
        InvalidArgument: It has another form.
    """
    match = _SOURCE.fullmatch(text)
    revision = unquote(match["revision"] or "") if match else ""
    if match is None or ".." in match["repository"] or (revision and not _plain(revision)):
        raise InvalidArgument(f"'{_shown(text)}' names no repository of a model hub; write {_WRITTEN}.")
    try:
        folder = check_path(match["folder"].rstrip("/")) if match["folder"] else ""
    except UnsafeFile as error:
        raise InvalidArgument(f"'{_shown(text)}' names no folder of a repository; write {_WRITTEN}.") from error
    return Source(match["repository"], revision, folder)


def is_commit(text: object) -> TypeGuard[str]:
    """Tell a full commit from a branch, a tag and a short hash."""
    return isinstance(text, str) and _COMMIT.fullmatch(text) is not None


def is_repository(text: object) -> TypeGuard[str]:
    """Tell `owner/name` from a path on somebody's machine."""
    return isinstance(text, str) and re.fullmatch(_REPOSITORY, text, re.ASCII) is not None and ".." not in text


def _plain(revision: str) -> bool:
    return bool(_REVISION.fullmatch(revision)) and ".." not in revision and "//" not in revision


def _shown(text: str) -> str:
    return text[:120].encode("unicode_escape").decode("ascii")
