"""Blobs as objects of an S3 bucket, by obstore; only `blobs.py` should be here.

S3 itself makes an object durable before it answers, shows it whole or not at all, and creates it once under `If-None-Match: *`.
Servers that speak S3 differ, so a new `Bucket` tries what it needs on a probe object and refuses a server that would overwrite.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import obstore
from model_organisms.errors import AlreadyExists, ConfigurationInvalid, NotFound, Unavailable
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

_RETRIES = 3
_RETRY_TIME = timedelta(seconds=20)
_ONE_REQUEST = 4 << 20
_OUT_OF_RANGE = "416"
_NOT_PARTIAL = "NotPartial"


class Bucket:
    """Blobs in a bucket.

    Args:
        bucket: Its name.
        prefix: What every object's name begins with.
        endpoint: Address of a server other than Amazon's; plain http is taken where it is written so.
        region: Its region.
        access_key_id: Credentials; from the environment where empty.
        secret_access_key: As above.
        one_writer: Whether this process alone writes here. Then a server without conditional writes will do: create-only is
            kept by a lock in this process. `true` or `false`.

    Raises:
        ConfigurationInvalid: The server cannot keep the contract.
        Unavailable: It does not answer.
    """

    OPTIONS: ClassVar = ("endpoint", "region", "access_key_id", "secret_access_key", "one_writer")
    _locks: ClassVar[dict[str, threading.Lock]] = {}
    """One lock for each bucket that has `one_writer`, shared by all instances of this process."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        endpoint: str = "",
        region: str = "us-east-1",
        access_key_id: str = "",
        secret_access_key: str = "",
        one_writer: str | bool = False,
    ) -> None:
        given = {"endpoint": endpoint, "access_key_id": access_key_id, "secret_access_key": secret_access_key}
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            region=region,
            client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": timedelta(seconds=5)},
            retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME},
            **{name: value for name, value in given.items() if value},  # type: ignore[arg-type] # names of S3Config, all str
        )
        self._shown = f"s3://{bucket}/{prefix}".rstrip("/")
        self._lock = self._locks.setdefault(f"{endpoint} {bucket}", threading.Lock())
        self._ranges = True
        self._conditional = True
        self._probe(one_writer=str(one_writer).lower() == "true")

    def in_place(self) -> None:
        """Do nothing: a bucket has no place but its name."""

    def write(self, path: str, chunks: Iterable[Buffer], *, create_only: bool, durable: bool = True) -> int:  # noqa: ARG002 - always
        """Write an object; durable on return."""
        counted = _Counted(chunks)
        with self._translated(path):
            if not create_only:
                obstore.put(self._store, path, counted.stream())
            elif self._conditional:
                # One request, since a multipart upload cannot be conditional: its bytes (ciphertext) are gathered in memory.
                obstore.put(self._store, path, b"".join(counted), mode="create", use_multipart=False)
            else:
                with self._lock:
                    if self._head(path) is not None:
                        raise AlreadyExistsError(path)
                    obstore.put(self._store, path, counted.stream())
        return counted.size

    def read(self, path: str) -> bytes:
        """Read a whole object."""
        with self._translated(path):
            return bytes(obstore.get(self._store, path).bytes())

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Read part of an object; nothing where it ends before `start`."""
        with self._translated(path):
            if not self._ranges:
                return bytes(memoryview(obstore.get(self._store, path).bytes())[start : start + length])
            try:
                return bytes(obstore.get_range(self._store, path, start=start, length=length))
            except BaseError as error:
                if _OUT_OF_RANGE in str(error):
                    return b""
                raise

    def size(self, path: str) -> int:
        """Tell an object's size."""
        with self._translated(path):
            size = self._head(path)
            if size is None:
                raise FileNotFoundError(path)
            return size

    def list(self, prefix: str) -> Iterator[str]:
        """Give the paths under a prefix, in no order."""
        with self._translated(prefix):
            for batch in obstore.list(self._store, prefix or None):
                yield from (entry["path"] for entry in batch)

    def delete(self, path: str, *, durable: bool = True) -> None:  # noqa: ARG002 - always
        """Delete an object."""
        with self._translated(path):
            try:
                obstore.delete(self._store, path)
            except FileNotFoundError:
                return

    def _head(self, path: str) -> int | None:
        try:
            return obstore.head(self._store, path)["size"]
        except FileNotFoundError:
            return None

    def _probe(self, *, one_writer: bool) -> None:
        """Find out on an object of our own whether the server creates only once, and whether it serves ranges.

        Raises:
            ConfigurationInvalid: It overwrites, and others may write here.
        """
        path = f"probe/{secrets.token_hex(16)}"
        with self._translated(path):
            try:
                obstore.put(self._store, path, b"probe")
            except FileNotFoundError:
                msg = f"{self._shown} does not exist; make the bucket first, or set blobs to another."
                raise ConfigurationInvalid(msg) from None
            try:
                self._conditional = self._refuses_to_overwrite(path)
                self._ranges = self._serves_ranges(path)
            finally:
                obstore.delete(self._store, path)
        if not self._conditional and not one_writer:
            msg = (
                f"The server of {self._shown} overwrites objects in spite of If-None-Match; use one with conditional writes, "
                "or, if this process alone writes there, add ?one_writer=true."
            )
            raise ConfigurationInvalid(msg)

    def _refuses_to_overwrite(self, path: str) -> bool:
        try:
            obstore.put(self._store, path, b"other", mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return True
        return False

    def _serves_ranges(self, path: str) -> bool:
        try:
            obstore.get_range(self._store, path, start=1, length=2)
        except BaseError as error:
            if _NOT_PARTIAL not in str(error):
                raise
            return False  # it answers a range as if it were the whole, which obstore rightly refuses: ask for the whole then
        return True

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            msg = f"There is a blob at {path} already; blobs are written once."
            raise AlreadyExists(msg, path=path) from None
        except FileNotFoundError:
            msg = f"There is no blob at {path}."
            raise NotFound(msg, path=path) from None
        except (PermissionDeniedError, UnauthenticatedError):
            msg = f"{self._shown} refused our credentials; set access_key_id and secret_access_key, or the bucket's policy."
            raise Unavailable(msg, path=path) from None
        except BaseError as error:
            what = str(error).splitlines()[0][:200]
            msg = f"{self._shown} failed at {path} ({what}); check the server and the network, then try again."
            raise Unavailable(msg, path=path) from None


class _Counted:
    """Chunks on their way, and how many bytes have passed."""

    def __init__(self, chunks: Iterable[Buffer]) -> None:
        self._chunks = iter(chunks)
        self.size = 0

    def stream(self) -> bytes | Iterator[memoryview]:
        """Give the chunks as obstore takes them: few bytes as one piece, which then go in one request."""
        held = []
        for chunk in self:
            held.append(chunk)
            if self.size > _ONE_REQUEST:
                return itertools.chain(held, self)
        return b"".join(held)

    def __iter__(self) -> Iterator[memoryview]:
        for chunk in self._chunks:
            view = memoryview(chunk).cast("B")
            self.size += len(view)
            yield view
