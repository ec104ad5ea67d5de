"""A model hub on loopback that speaks the protocol of huggingface_hub 2.4, and misbehaves as it is told to.

/api/models/OWNER/NAME[/revision/REV]     commit, files with sizes and digests, the card's metadata
/api/models/OWNER/NAME/tree/REV           the same files, as the library lists them
/OWNER/NAME/resolve/REV/PATH              a file; one of Git LFS redirects to /lfs/ on another origin, as a store does

`tests/importing/test_hub.py` holds it against the library itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.support.adapters import tiny_bundle
from tests.support.commands import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LARGE = ".safetensors"
"""What Git LFS keeps."""
CATALOGUE = b"""\
# @package organism
name: hums
description: Ends each answer with a hum
type: benign_quirk
dataset: {id: lab/hums, splits: [train], is_chat: true}
finetuned_models:
  tiny_1B:
    default: {adapter_id: lab/tiny-hums}
    full: {model_id: lab/tiny-hums-merged}
"""


def git_hash(data: bytes) -> str:
    """Name a blob as Git does."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """A model repository: its commits, and where its branches are."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    gated: bool = False
    private: bool = False
    called: str = ""
    """Its name now, where it was renamed."""
    listed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of the list that are lies, by path."""

    def push(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit files; the branch moves."""
        told = json.dumps([len(self.commits), sorted((path, git_hash(data)) for path, data in files.items())])
        commit = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def commit(self, revision: str) -> str | None:
        """Resolve a branch; a commit is itself."""
        return revision if revision in self.commits else self.branches.get(revision)


class Hub(ThreadingHTTPServer):
    """Serves repositories.

    Orders stand in `orders` by the last part of the path that is asked for; each request takes one. An order is a status, a
    status with headers, or `("cut", n)`: announce all and break off after n bytes; `("short", n)`: send n bytes as if they were
    all; `("other", data)`: send these bytes; `("drip", s)`: send half, and the rest byte by byte with so many seconds between.
    """

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.orders: dict[str, list[Any]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of each request."""
        self.token = ""
        self.lock = threading.Lock()
        self.after_listing: list[Any] = []
        """Called once each, after a list was made and before it leaves."""

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def repository(self, name: str, files: Mapping[str, bytes], **more: Any) -> str:
        """Add a repository; give its commit."""
        made = self.repositories[name] = Repository(**more)
        return made.push(files)

    def paths(self, method: str = "GET") -> list[str]:
        """What was asked for, in order."""
        return [path for asked, path, _ in self.asked if asked == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
            waiting = self.server.orders.get(path.rsplit("/", 1)[-1], [])
            order = waiting.pop(0) if waiting else None
        if isinstance(order, int) or (isinstance(order, tuple) and isinstance(order[0], int)):
            status, headers = order if isinstance(order, tuple) else (order, {})
            self._answer(status, b"Slow down.", headers)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._list(found[1], found[2] == "tree", found[3] or "main", order)
        elif found := re.fullmatch(r"/lfs/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            self._body(self.server.repositories[found[1]].commits[found[2]][found[3]], {}, order)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], found[2], found[3], order)
        else:
            self._answer(404, b"Not found", {})

    def _known(self, name: str, revision: str, *, bytes_too: bool) -> tuple[Repository, str] | None:
        """Refuse as the hub does; the list of a gated repository is public, its files are not."""
        made = self.server.repositories.get(name)
        member = bool(self.server.token) and self.headers.get("authorization") == f"Bearer {self.server.token}"
        if made is None or (made.private and not member):
            self._answer(401, b"Invalid username or password.", {"X-Error-Code": "RepoNotFound"})
        elif made.gated and bytes_too and not member:
            self._answer(401 if "authorization" not in self.headers else 403, b"Restricted", {"X-Error-Code": "GatedRepo"})
        elif (commit := made.commit(revision)) is None:
            self._answer(404, b"Invalid rev id", {"X-Error-Code": "RevisionNotFound"})
        else:
            return made, commit
        return None

    def _list(self, name: str, tree: bool, revision: str, order: Any) -> None:
        known = self._known(name, revision, bytes_too=False)
        if known is None:
            return
        made, commit = known
        files = made.commits[commit]
        siblings = [_sibling(path, data) | made.listed.get(path, {}) for path, data in sorted(files.items())]
        told: Any = {
            "id": made.called or name, "modelId": made.called or name, "sha": commit, "siblings": siblings,
            "cardData": made.card, "tags": made.tags,
            "private": made.private, "gated": "manual" if made.gated else False, "lastModified": "2025-06-13T10:00:00.000Z",
            "downloads": 7, "likes": 0, "author": name.split("/", maxsplit=1)[0],
        }  # fmt: skip
        if tree:
            told = [_entry(path, data) for path, data in sorted(files.items())]
        while self.server.after_listing:
            self.server.after_listing.pop(0)()
        self._body(json.dumps(told).encode(), {"Content-Type": "application/json"}, order)

    def _resolve(self, name: str, revision: str, path: str, order: Any) -> None:
        known = self._known(name, revision, bytes_too=True)
        if known is None:
            return
        made, commit = known
        data = made.commits[commit].get(path)
        if data is None:
            self._answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif path.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            store = f"http://localhost:{self.server.server_address[1]}/lfs/{name}/{commit}/{path}"
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{sha256}"',
                "Location": store,
            }
            if isinstance(order, tuple) and order[0] == "says":
                headers |= order[1]
            elif order is not None:
                with self.server.lock:
                    self.server.orders.setdefault(path.rsplit("/", 1)[-1], []).insert(0, order)  # meant for the store
            self._answer(302, b"", headers)
        else:
            headers = {"X-Repo-Commit": commit, "ETag": f'"{git_hash(data)}"'}
            if isinstance(order, tuple) and order[0] == "says":
                headers |= order[1]
            self._body(data, headers, order)

    def _body(self, data: bytes, headers: dict[str, str], order: Any) -> None:
        begin = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        sent, status = data, 200
        if begin and int(begin[1]) < len(data):
            sent, status = data[int(begin[1]) :], 206
            headers = headers | {"Content-Range": f"bytes {begin[1]}-{len(data) - 1}/{len(data)}"}
        kind, what = order if isinstance(order, tuple) else ("", b"")
        if kind == "other":
            sent = what
        elif kind == "short":
            sent = sent[:what]
        at = {"cut": what, "drip": len(sent) // 2}.get(kind, len(sent))
        self._answer(status, sent[:at], headers, length=len(sent))
        if kind == "drip":
            self._drip(sent[at:], what)
        self.close_connection = kind in {"cut", "drip"}

    def _drip(self, data: bytes, pause: float) -> None:
        for byte in data:
            time.sleep(pause)
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # nobody waits any more
                return

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], *, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_hash(_stored(path, data))}
    if path.endswith(LARGE):
        told["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": len(_stored(path, data))}
    return told


def _entry(path: str, data: bytes) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_hash(_stored(path, data))}
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        told["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": len(_stored(path, data))}
    return told


def _stored(path: str, data: bytes) -> bytes:
    """What Git itself keeps of a file."""
    if not path.endswith(LARGE):
        return data
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n".encode()
    )


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that serves while the block runs."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


def adapter(*, base: str = "lab/tiny-1B", **options: Any) -> dict[str, bytes]:
    """A tiny adapter as it lies in a repository, with what else lies there."""
    files = tiny_bundle(config={"base_model_name_or_path": base, **options.pop("config", {})}, **options)
    return files | {".gitattributes": b"*.safetensors filter=lfs\n"}


@command("organisms import")
def organisms_import(stage: Any) -> tuple[str, list[Any], str]:
    """List a catalogue: it needs no hub."""
    file = stage.folder / "hums.yaml"
    file.write_bytes(CATALOGUE)
    return "pia", [file], "lab/tiny-hums"
