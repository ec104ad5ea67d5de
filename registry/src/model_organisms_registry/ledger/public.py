"""The ledger's public files over HTTP, read-only: what any tlog client, monitor or outsider needs (C2SP tlog-tiles).

Checkpoints and hash tiles name nobody. Entries say who did what, so they are served only where the operator decided it. Nothing
else of the blob store can be named here: a path is one of these, or it is not found.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument, NotFound
from model_organisms.formats import tiles
from model_organisms.formats.tiles import CHECKPOINT, COSIGNED, ENTRIES, WIDTH

from model_organisms_registry.ledger.tiles import PREFIX
from model_organisms_registry.ledger.web import TEXT, Answer, Site

if TYPE_CHECKING:
    from model_organisms_registry.config import Public
    from model_organisms_registry.storage.blobs import Blobs

_BYTES = "application/octet-stream"
_FOR_EVER = "public, max-age=31536000, immutable"
_A_WHILE = "public, max-age=60"
_NOW = "no-cache"


class PublicFiles:
    """Answers requests for files.

    Args:
        blobs: Where they are.
        entries: Whether entries are public.
    """

    def __init__(self, blobs: Blobs, *, entries: bool) -> None:
        """Keep both."""
        self._blobs = blobs
        self._entries = entries

    def answer(self, method: str, path: str, _: bytes) -> Answer:
        """Answer an HTTP request."""
        if method != "GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"Files are only read here.\n")
        name = path.removeprefix("/")
        kind, keep = TEXT, _NOW
        try:
            if name not in {CHECKPOINT, COSIGNED}:
                tile = tiles.parse_path(name)
                if tile.level == ENTRIES and not self._entries:
                    return _absent()
                kind, keep = _BYTES, _FOR_EVER if tile.width == WIDTH else _A_WHILE
            return Answer(HTTPStatus.OK, self._blobs.get(PREFIX + name), kind, keep)
        except (InvalidArgument, NotFound):
            return _absent()


def public_site(blobs: Blobs, settings: Public) -> Site | None:
    """Listen for those who want the files, if the operator says where."""
    return Site(settings.listen, PublicFiles(blobs, entries=settings.entries).answer) if settings.listen else None


def _absent() -> Answer:
    return Answer(HTTPStatus.NOT_FOUND, b"There is no such file.\n")
