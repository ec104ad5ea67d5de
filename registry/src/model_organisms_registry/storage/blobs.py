"""Keeps bytes under paths, in a folder or a bucket, each write durable when the call returns; what they mean is not known here.

Who can make the same bytes again may write with `durable=False`: seen whole or not at all, as ever, but power loss may undo it.

Every path is written once, unless its owner says otherwise: `put` never overwrites, `replace` does. Both stores keep the same
contract (`tests/means/test_blobs.py` runs it against each):
- a path is seen whole or not at all, whatever fails in between, and once a call has returned it survives power loss;
- of many writers that create one path, one succeeds and the others are told `AlreadyExists`;
- paths are relative, of lower- and upper-case letters, digits, `.`, `-` and `_`, and no part of one begins with a dot.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from model_organisms.errors import ConfigurationInvalid, InvalidArgument, NotFound

from model_organisms_registry.storage.bucket import Bucket
from model_organisms_registry.storage.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", re.ASCII)
_MAX_PATH = 800


class Blobs:
    """A store of blobs.

    Args:
        url: `file:///folder` or `s3://bucket/prefix`. Options may stand in the query: `?endpoint=...&region=...`.
        **options: For a bucket: `endpoint`, `region`, `access_key_id`, `secret_access_key`, `one_writer` (see `Bucket`); where
            not given, credentials come from the environment as AWS's own tools read them.

    Raises:
        ConfigurationInvalid: Not such an address, or a store that cannot keep the contract.
    """

    def __init__(self, url: str, **options: Any) -> None:  # noqa: ANN401 - each store types its own
        self.url = url.split("?", 1)[0]
        self._store = _open(url, options)

    def put(self, path: str, data: Buffer | Iterable[Buffer], *, create_only: bool = True, durable: bool = True) -> int:
        """Write a blob.

        Args:
            path: Where.
            data: All of it, or its chunks in order.
            create_only: Whether something already there is an error (else it is replaced).
            durable: Whether it must survive power loss from now on; a bucket's always does.

        Returns:
            Its size in bytes.

        Raises:
            AlreadyExists: Something is there. After a lost connection it may be this very call's own earlier attempt.
            Unavailable: The store cannot be written; nothing was.
        """
        return self._store.write(_checked(path), _chunks(data), create_only=create_only, durable=durable)

    def replace(self, path: str, data: Buffer | Iterable[Buffer], *, durable: bool = True) -> int:
        """Write a blob over whatever is there."""
        return self.put(path, data, create_only=False, durable=durable)

    def get(self, path: str) -> bytes:
        """Read a whole blob.

        Raises:
            NotFound: There is none.
        """
        return self._store.read(_checked(path))

    def get_range(self, path: str, start: int, length: int) -> bytes:
        """Read part of a blob: fewer bytes than asked for only where it ends.

        Raises:
            NotFound: There is none.
            InvalidArgument: It ends before `start`.
        """
        if start < 0 or length < 1:
            msg = f"A range from {start} of {length} bytes cannot be read; start at 0 or later and ask for 1 byte or more."
            raise InvalidArgument(msg)
        part = self._store.read_range(_checked(path), start, length)
        if not part:
            msg = f"{path} ends before byte {start}; ask for its size first."
            raise InvalidArgument(msg)
        return part

    def size(self, path: str) -> int:
        """Tell a blob's size in bytes.

        Raises:
            NotFound: There is none.
        """
        return self._store.size(_checked(path))

    def exists(self, path: str) -> bool:
        """Tell whether there is a blob."""
        try:
            self.size(path)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        """List the paths under a folder-like prefix (whole parts: `a/b` holds `a/b/c`, not `a/bc`), sorted."""
        return sorted(self._store.list(_checked(prefix) if prefix else ""))

    def in_place(self) -> None:
        """Make sure that the store is still the one that was opened.

        Raises:
            Unavailable: Its folder was removed or replaced under us.
        """
        self._store.in_place()

    def delete(self, path: str, *, durable: bool = True) -> None:
        """Delete a blob; nothing happens where there is none."""
        self._store.delete(_checked(path), durable=durable)


def _open(url: str, options: dict[str, Any]) -> Folder | Bucket:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True)) | options
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/") and not options:
        return Folder(unquote(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        prefix = parts.path.strip("/")
        try:
            return Bucket(parts.netloc, _checked(prefix) if prefix else "", **options)
        except TypeError:
            msg = f"The bucket's options {', '.join(sorted(options))} are not all known; known are {', '.join(Bucket.OPTIONS)}."
            raise ConfigurationInvalid(msg) from None
        except InvalidArgument as error:
            raise ConfigurationInvalid(error.message) from None
    msg = f"'{parts.scheme}' is no place for blobs; set blobs to file:///absolute/folder (no options) or s3://bucket/prefix."
    raise ConfigurationInvalid(msg)


def _checked(path: str) -> str:
    if len(path) > _MAX_PATH or not all(_PART.fullmatch(part) for part in path.split("/")):
        shown = path[:80].encode("unicode_escape").decode("ascii")
        msg = f"'{shown}' is no path of a blob; write parts of letters, digits, '.', '-' and '_', divided by '/', none hidden."
        raise InvalidArgument(msg)
    return path


def _chunks(data: Buffer | Iterable[Buffer]) -> Iterable[Buffer]:
    try:
        return (memoryview(data),)  # type: ignore[arg-type] # the question is whether it is a buffer
    except TypeError:
        return data  # type: ignore[return-value] # it is not
