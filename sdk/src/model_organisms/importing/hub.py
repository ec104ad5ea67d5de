"""Asks a model hub for a repository's list of files and for the files, and believes neither. What they mean: the other modules.

The session, with its proxies and certificates, is huggingface_hub's own. Its calls are not used, for they hold no body against
its digest, wait as long as a server says, and keep what they fetched on disk. Here

- a list comes with a full commit, and every file is asked for at that commit: a branch that moves in between changes nothing;
- nothing is longer than the list says, and nothing on the list longer than its kind may be;
- a file's bytes have the SHA-256 (or, where Git LFS does not keep it, the Git hash) that the list says;
- a busy hub is asked again when it says so, a few times, and waited for two minutes at most; one that drips is cut off;
- bytes stay in memory, and a token comes from HF_TOKEN alone and goes to the hub alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote, urlsplit

import httpx2

from model_organisms.bases import offline
from model_organisms.errors import (
    ConfigurationInvalid,
    Denied,
    DigestMismatch,
    InvalidBundle,
    NotFound,
    Unavailable,
)
from model_organisms.formats import strict_json
from model_organisms.formats.paths import shown_path
from model_organisms.importing.source import Source, is_commit, is_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

ENDPOINT = "https://huggingface.co"
MAX_LISTING = 16 << 20
MAX_LISTED = 50_000
TRIES = 5
"""Times that one thing is asked for."""
PATIENCE_S = 120.0
"""Longest time that one thing is waited for between tries, in all."""

SLOWEST = 16 << 10
"""Bytes in a second below which a body counts as cut off, after `GRACE_S`."""
GRACE_S = 60.0

_TIMEOUT = httpx2.Timeout(30.0)
_PAUSE_S = 0.5
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_RATE = re.compile(r";\s*r=(\d+)\s*;\s*t=(\d+)", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SHA1 = re.compile(r"[0-9a-f]{40}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository, as the list has it."""

    path: str
    size: int
    sha256: str = ""
    """Of a file that Git LFS keeps; empty for others."""
    blob: str = ""
    """Git's own hash, which for a file of Git LFS is that of its pointer."""

    def holds(self, data: bytes | bytearray) -> bool:
        """Tell whether these are its bytes."""
        if len(data) != self.size:
            return False
        if self.sha256:
            return hashlib.sha256(data).hexdigest() == self.sha256
        git = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)  # the name that Git gives it
        git.update(data)
        return git.hexdigest() == self.blob


@dataclass(frozen=True, slots=True)
class Listing:
    """What a hub says of a repository at one commit."""

    source: Source
    """With the commit as its revision, whatever was asked for."""
    asked: str
    """The revision that was asked for; empty where none was."""
    files: Mapping[str, HubFile]
    card: Mapping[str, Any] = field(default_factory=dict)
    """The card's metadata, as the hub read it: claims."""
    tags: tuple[str, ...] = ()
    changed: str = ""
    """When it was last changed, as the hub says."""
    called: str = ""
    """What the hub calls it now; another name than was asked for where it was renamed."""

    @property
    def commit(self) -> str:
        """The commit, 40 hex digits."""
        return self.source.revision


class _Cut(httpx2.TransportError):
    """A body that ended before its announced length."""


class Hub:
    """A hub, asked with patience and without trust."""

    def __init__(self, endpoint: str = "") -> None:
        """Choose a hub.

        Args:
            endpoint: Where it is; by default what HF_ENDPOINT says, or huggingface.co.

        Raises:
            ConfigurationInvalid: The endpoint is no address, or a token would go to it in clear.
            Unavailable: The environment says offline.
        """
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        address = urlsplit(self.endpoint)
        if address.scheme not in {"https", "http"} or not address.hostname:
            raise ConfigurationInvalid("The hub's address (HF_ENDPOINT) must be a URL such as https://huggingface.co.")
        token = os.environ.get("HF_TOKEN", "").strip()
        if token and address.scheme != "https" and address.hostname not in _LOOPBACK:
            raise ConfigurationInvalid("HF_TOKEN is sent over https only; change HF_ENDPOINT, or unset HF_TOKEN.")
        if offline():
            raise Unavailable("The environment says offline; unset HF_HUB_OFFLINE to import from a hub.")
        self._headers = {"User-Agent": "model-organisms", "Accept-Encoding": "identity"}
        self._headers |= {"Authorization": f"Bearer {token}"} if token else {}

    def listing(self, source: Source) -> Listing:
        """Ask for a repository's files, and for the commit they are of.

        Raises:
            NotFound: There is no such repository or revision, or it is private.
            Denied: It is gated, and the token does not open it.
            Unavailable: The hub does not answer, or not in time.
            InvalidBundle: The list is none, or names no commit.
        """
        revision = f"/revision/{quote(source.revision, safe='')}" if source.revision else ""
        url = f"{self.endpoint}/api/models/{source.repository}{revision}"
        body = _Body(MAX_LISTING, exact=False)
        self._ask(url, f"the list of files of {source.repository}", body, query={"blobs": "true"})
        return read_listing(bytes(body.data), source)

    def fetch(self, listing: Listing, file: HubFile, *, advance: Callable[[int], None] = lambda _more: None) -> memoryview:
        """Fetch one file, at the listing's commit, into memory.

        Args:
            listing: Where it is.
            file: What it must be.
            advance: Told how many bytes came.

        Raises:
            DigestMismatch: The bytes are not those of the list, or are of another commit.
            Unavailable: The hub does not answer, or cut the body off each time.
        """
        if not file.size and file.holds(b""):
            return memoryview(b"")
        path = quote(file.path, safe="/")
        url = f"{self.endpoint}/{listing.source.repository}/resolve/{listing.commit}/{path}"
        body = _Body(file.size, exact=True, advance=advance, before=lambda headers: _same(headers, listing, file))
        self._ask(url, f"'{shown_path(file.path)}'", body)
        if not file.holds(body.data):
            msg = (
                f"'{shown_path(file.path)}' is not the file that the hub lists; nothing was kept. Try again, and tell its owner."
            )
            raise DigestMismatch(msg, path=shown_path(file.path))
        return memoryview(body.data).toreadonly()

    def _ask(self, url: str, what: str, body: _Body, *, query: Mapping[str, str] | None = None) -> None:
        """Ask until it is answered: `TRIES` times at most, and never waiting longer than `PATIENCE_S` in all."""
        from huggingface_hub.errors import OfflineModeIsEnabled
        from huggingface_hub.utils import get_session

        waited, why = 0.0, ""
        for attempt in range(TRIES):
            pause = _PAUSE_S * 2**attempt
            try:
                headers = self._headers | body.resumed()
                with get_session().stream("GET", url, params=query, headers=headers, timeout=_TIMEOUT) as response:
                    if response.status_code not in _AGAIN:
                        _refuse_status(response, what)
                        body.read(response)
                        return
                    why = f"it answered {response.status_code}"
                    pause = _pause(response.headers, pause)
            except OfflineModeIsEnabled as error:
                raise Unavailable("The environment says offline; unset HF_HUB_OFFLINE to import from a hub.") from error
            except httpx2.TransportError as error:
                why = "it cut the answer off" if isinstance(error, _Cut | httpx2.RemoteProtocolError) else type(error).__name__
            except (httpx2.RequestError, httpx2.InvalidURL) as error:
                raise Unavailable(f"The hub cannot be asked for {what} ({type(error).__name__}); check HF_ENDPOINT.") from error
            if waited + pause > PATIENCE_S:
                msg = f"The hub does not give {what} now: {why}, and asks to wait {pause:,.0f} s; run this again then."
                raise Unavailable(msg, retry_after_s=f"{pause:.0f}")
            if attempt < TRIES - 1:
                time.sleep(pause)
                waited += pause
        raise Unavailable(f"The hub did not give {what} in {TRIES} tries: {why}. Nothing was published; try again later.")


class _Body:
    """What came of one body; where it was cut, the next try asks for the rest."""

    def __init__(
        self,
        most: int,
        *,
        exact: bool,
        advance: Callable[[int], None] = lambda _more: None,
        before: Callable[[httpx2.Response], None] = lambda _response: None,
    ) -> None:
        self.data = bytearray()
        self._most = most
        self._exact = exact
        self._advance = advance
        self._before = before

    def resumed(self) -> dict[str, str]:
        """Ask for what is missing; a list is asked for whole."""
        if not self._exact or not 0 < len(self.data) < self._most:
            self._forget()
            return {}
        return {"Range": f"bytes={len(self.data)}-"}

    def read(self, response: httpx2.Response) -> None:
        """Take a body.

        Raises:
            _Cut: It ended too early, or comes too slowly to be waited for.
            DigestMismatch: It is longer than it may be.
        """
        self._before(response)
        begins = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
        if response.status_code != httpx2.codes.PARTIAL_CONTENT or not begins or int(begins[1]) != len(self.data):
            self._forget()  # the server sends all of it again
        begun, had = time.monotonic(), len(self.data)
        for chunk in response.iter_bytes():  # as it arrives: what came before a cut is kept
            if len(self.data) + len(chunk) > self._most:
                msg = f"The hub sends more than the {self._most:,} bytes it may; nothing was kept. Try again, and tell its owner."
                raise DigestMismatch(msg)
            self.data += chunk
            self._advance(len(chunk))
            taken = time.monotonic() - begun
            if taken > GRACE_S and len(self.data) - had < taken * SLOWEST:
                raise _Cut("slow")
        if self._exact and len(self.data) < self._most:
            raise _Cut("short")

    def _forget(self) -> None:
        self._advance(-len(self.data))
        self.data.clear()


def read_listing(data: bytes, source: Source) -> Listing:
    """Read a hub's answer about a model.

    Args:
        data: The JSON.
        source: What was asked for.

    Raises:
        InvalidBundle: It is none, or lists a file without its size and digest.
        DigestMismatch: It is of another commit than was asked for.
    """
    raw = strict_json.parse(data, what="The hub's list of files", limit=MAX_LISTING, error=InvalidBundle)
    if not isinstance(raw, dict) or not is_commit(raw.get("sha")) or not isinstance(raw.get("siblings"), list):
        raise InvalidBundle(f"The hub's answer about {source.repository} names no commit and files; check HF_ENDPOINT.")
    commit, siblings = raw["sha"], raw["siblings"]
    if source.pinned and commit != source.revision:
        msg = f"The hub answers for commit {commit[:12]} where {source.revision[:12]} was asked for; write the full commit again."
        raise DigestMismatch(msg)
    if len(siblings) > MAX_LISTED:
        raise InvalidBundle(f"{source.repository} has more than {MAX_LISTED:,} files; name a folder's own repository.")
    files = {file.path: file for file in map(_file, siblings)}
    card, tags = raw.get("cardData"), raw.get("tags")
    return Listing(
        source=Source(source.repository, commit, source.folder),
        asked=source.revision,
        files=files,
        card=card if isinstance(card, dict) else {},
        tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
        changed=str(raw.get("lastModified", ""))[:40],
        called=name if is_repository(name := raw.get("id")) else source.repository,
    )


def _file(raw: object) -> HubFile:
    if isinstance(raw, dict) and isinstance(path := raw.get("rfilename"), str):
        lfs = raw.get("lfs")
        size = lfs.get("size") if isinstance(lfs, dict) else raw.get("size")
        sha256 = lfs.get("sha256") if isinstance(lfs, dict) else ""
        blob = raw.get("blobId")
        digest = (sha256, _SHA256) if sha256 else (blob, _SHA1)
        if type(size) is int and size >= 0 and isinstance(digest[0], str) and digest[1].fullmatch(digest[0]):
            return HubFile(path, size, sha256 or "", blob if isinstance(blob, str) else "")
    raise InvalidBundle("The hub lists a file without its size and digest, so it could not be checked; use another endpoint.")


def _same(response: httpx2.Response, listing: Listing, file: HubFile) -> None:
    """Hold what the hub says of a body, before it comes, against the list; a store it redirects to says nothing of that."""
    for answer in (*response.history, response):
        said = answer.headers.get("x-repo-commit", listing.commit)
        if said != listing.commit:
            msg = f"The hub sends '{shown_path(file.path)}' of another commit than {listing.commit[:12]}; try again."
            raise DigestMismatch(msg, path=shown_path(file.path))
        tag = answer.headers.get("x-linked-etag", "").removeprefix("W/").strip('"')
        if file.sha256 and _SHA256.fullmatch(tag) and tag != file.sha256:
            msg = f"The hub says '{shown_path(file.path)}' has another SHA-256 than it lists; nothing was fetched. Try again."
            raise DigestMismatch(msg, path=shown_path(file.path))


def _refuse_status(response: httpx2.Response, what: str) -> None:
    status, code = response.status_code, response.headers.get("x-error-code", "")
    if status in {200, 206}:
        return
    if code == "GatedRepo" or status == httpx2.codes.FORBIDDEN:
        msg = f"The hub gates {what}: accept its terms on its page there, then set HF_TOKEN to a token of that account."
        raise Denied(msg, code=code or str(status))
    if status in {401, 404}:
        _not_found(what, code)
    raise Unavailable(f"The hub answered {status} when asked for {what}; check HF_ENDPOINT, or try again later.")


def _not_found(what: str, code: str) -> NoReturn:
    told = {
        "RevisionNotFound": "there is no such branch, tag or commit; look at the history of the repository there",
        "EntryNotFound": "the file is gone from that commit; run this again",
    }.get(code, "there is none, or it is private; check the name, or set HF_TOKEN to a token that may read it")
    raise NotFound(f"The hub does not give {what}: {told}.", code=code or "RepoNotFound")


def _pause(headers: Mapping[str, str], otherwise: float) -> float:
    """Read how long a busy hub asks to wait: Retry-After in seconds or as a date, or RateLimit, as the hub has it."""
    asked = headers.get("retry-after", "").strip()
    if asked.isdecimal() and asked.isascii():
        return min(float(asked[:12]), 1e9)
    rate = _RATE.search(headers.get("ratelimit", ""))
    if rate and int(rate[1]) == 0:
        return min(float(rate[2][:12]), 1e9)
    if asked:
        try:
            until = parsedate_to_datetime(asked)
            return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
        except ValueError:
            return otherwise
    return otherwise
