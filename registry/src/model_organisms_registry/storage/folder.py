"""Blobs as files of a local folder, written durably; only `blobs.py` should be here.

obstore's local store publishes by link and rename but never syncs, so an acknowledged write could be lost with the power; the
ledger needs more, hence this writer. A write is: a file under `.tmp`, all bytes, fsync; `link` (create-only: fails where the name
is taken) or `rename` (replace) to its place; fsync of its folder and of every folder made on the way.
A crash before the link leaves only a file under `.tmp`, swept a day later; after it, the blob.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

_TMP = ".tmp"
_STALE_S = 86_400
_MOST_SYNCED = 256
_RACES = 10
"""How often a folder may be pruned away under a writer before it gives up; each time another delete must hit the same moment."""


class Folder:
    """Blobs in a folder of this machine, which belongs to the registry alone.

    Args:
        root: Absolute path; made, with 0700, where it is missing.

    Raises:
        ConfigurationInvalid: It cannot be made, or is not a folder this process may write.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._tmp = self._root / _TMP
        self._synced: dict[Path, int] = {}
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self._root.parent)
            self._make_ready(self._tmp)
            self._sweep()
            self._inode = _inode(self._root)
        except OSError as error:
            msg = f"Blobs cannot be kept in {root} ({error.strerror}); make it a folder that the registry's user may write."
            raise ConfigurationInvalid(msg) from error

    def in_place(self) -> None:
        """Make sure that the folder of that name is still the one that was opened."""
        try:
            same = _inode(self._root) == self._inode
        except OSError:
            same = False
        if not same:
            msg = f"The blob folder {self._root} was removed or replaced under the registry; put it back, or restart on purpose."
            raise Unavailable(msg)

    def write(self, path: str, chunks: Iterable[Buffer], *, create_only: bool, durable: bool = True) -> int:
        """Write a blob, durable on return unless its writer can do without."""
        target = self._root / path
        with _translated(path):
            waiting, size = self._stage(chunks, durable=durable)
            try:
                self._publish(waiting, target, create_only=create_only, durable=durable)
            finally:
                waiting.unlink(missing_ok=True)
        return size

    def read(self, path: str) -> bytes:
        """Read a whole blob."""
        with _translated(path), self._opened(path) as (descriptor, size):
            return _pread(descriptor, 0, size)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read part of a blob; nothing where it ends before `start`."""
        with _translated(path), self._opened(path) as (descriptor, size):
            return _pread(descriptor, start, min(length, max(0, size - start)))

    def size(self, path: str) -> int:
        """Tell a blob's size."""
        with _translated(path):
            found = (self._root / path).lstat()
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a blob")
            return found.st_size

    def list(self, prefix: str) -> Iterator[str]:
        """Give the paths under a prefix, in no order."""
        with _translated(prefix):
            for folder, folders, files in os.walk(self._root / prefix):
                folders[:] = [name for name in folders if not name.startswith(".")]
                below = os.path.relpath(folder, self._root)
                yield from (name if below == "." else f"{below}/{name}" for name in files if not name.startswith("."))

    def delete(self, path: str, *, durable: bool = True) -> None:
        """Delete a blob, and the folders that it leaves empty."""
        target = self._root / path
        with _translated(path):
            try:
                target.unlink()
                if durable:
                    _sync(target.parent)
            except (FileNotFoundError, NotADirectoryError):  # never there, or its folder is gone already
                return
            for folder in target.parents:
                if folder == self._root:
                    break
                try:
                    folder.rmdir()
                except OSError:  # not empty, or gone: another's business
                    break
                self._synced.pop(folder, None)

    def _stage(self, chunks: Iterable[Buffer], *, durable: bool) -> tuple[Path, int]:
        """Write and sync a file that nobody sees yet."""
        waiting = self._tmp / secrets.token_hex(16)
        size = 0
        try:
            descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    view = memoryview(chunk).cast("B")
                    while len(view):
                        written = file.write(view)
                        size += written
                        view = view[written:]
                if durable:
                    os.fsync(descriptor)
        except BaseException:
            waiting.unlink(missing_ok=True)
            raise
        return waiting, size

    def _publish(self, waiting: Path, target: Path, *, create_only: bool, durable: bool) -> None:
        for attempt in range(_RACES):
            try:
                if durable or attempt:
                    self._make_ready(target.parent)
                if create_only:
                    os.link(waiting, target, follow_symlinks=False)
                else:
                    waiting.replace(target)
            except FileNotFoundError:  # the folder is not made yet, or was pruned by a delete just now
                continue
            if durable:
                _sync(target.parent)
            return
        msg = f"{target.name} could not be placed because its folder keeps vanishing; try again, nothing was done."
        raise Unavailable(msg)

    def _make_ready(self, folder: Path) -> None:
        """See that a folder and those above it exist and are synced, each into its parent.

        A folder that another writer made a moment ago is there but perhaps not synced yet; so it counts as synced only where
        this instance did it, and to the very folder that bears the name now.
        """
        if folder == self._root:
            return
        self._make_ready(folder.parent)
        with suppress(FileExistsError):  # not exist_ok=True, which raises when the folder is pruned just after it was found
            folder.mkdir(mode=0o700)
        inode = folder.stat().st_ino
        if self._synced.get(folder) != inode:
            _sync(folder.parent)
            if len(self._synced) >= _MOST_SYNCED:  # each session has a folder of its own; one still in use is synced once more
                self._synced.clear()
            self._synced[folder] = inode

    def _sweep(self) -> None:
        """Remove what crashed writers left, long after any live one could still want it."""
        for entry in os.scandir(self._tmp):
            if entry.stat(follow_symlinks=False).st_mtime < time.time() - _STALE_S:
                Path(entry.path).unlink(missing_ok=True)

    @contextmanager
    def _opened(self, path: str) -> Iterator[tuple[int, int]]:
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a blob")
            yield descriptor, found.st_size
        finally:
            os.close(descriptor)


def _pread(descriptor: int, start: int, length: int) -> bytes:
    parts = []
    while length:
        part = os.pread(descriptor, length, start)
        if not part:
            raise OSError(errno.EIO, "the file was cut while it was read")
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        msg = f"There is a blob at {path} already; blobs are written once."
        raise AlreadyExists(msg, path=path) from None
    except FileNotFoundError:
        msg = f"There is no blob at {path}."
        raise NotFound(msg, path=path) from None
    except (IsADirectoryError, NotADirectoryError):
        msg = f"{path} lies above or below another blob's path; choose another path."
        raise InvalidArgument(msg, path=path) from None
    except OSError as error:
        what = error.strerror or type(error).__name__
        msg = f"The blob folder failed at {path} ({what}); check its disk and its permissions, then try again."
        raise Unavailable(msg, path=path) from error
