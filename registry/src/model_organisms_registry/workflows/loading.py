"""How a version comes into a cell: opened for a permit, handed over, and gone from this process's memory at once."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import TYPE_CHECKING

from model_organisms.errors import BaseModelMismatch, CellUnavailable, JailMissing, ModelOrganismsError
from model_organisms.formats import provenance
from model_organisms.formats.buffers import wipe

from model_organisms_registry.domain.permits import Action
from model_organisms_registry.domain.rerunning import FROM
from model_organisms_registry.domain.sandbox import slow_to_load
from model_organisms_registry.storage.bundles import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from model_organisms.records import BundleFile, Level

    from model_organisms_registry.domain.organisms import Subject
    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.isolation.placement import Pool, Tenant
    from model_organisms_registry.storage.bundles import Bundles

_LOG = logging.getLogger(__name__)
_WORDS = frozenset({"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})


class Loading:
    """Gives versions to cells.

    Args:
        bundles: Where the weights are, sealed.
        pool: Starts cells.
        bases: Hub id of a base model to its folder here.
    """

    def __init__(self, bundles: Bundles, pool: Pool, bases: Mapping[str, Path]) -> None:
        """Keep them."""
        self._bundles = bundles
        self._pool = pool
        self._bases = bases
        self.make_room: Callable[[], bool] = lambda: False
        """Asked when a session finds no cell: ends what can wait, and says whether there was anything."""

    def cell(self, permit: Permit, subject: Subject) -> Tenant:
        """Start a cell and give it the version, or what an alias stands for. `_loaded` has the arguments.

        Raises:
            CellUnavailable: The registry lacks the base model, no cell came up, or of an alias, whatever else it was.
            BaseModelMismatch: It has another base model of that name.
        """
        if subject.behind is None:
            return self._loaded(permit, subject, subject.level)
        try:
            return self._loaded(permit, subject.behind, subject.level)
        except JailMissing:
            raise
        except ModelOrganismsError as error:
            _LOG.warning("%s could not be opened: %s", permit.resource, error.message)
            msg = "No cell took this alias up; try again in a while, or tell the game's master."
            raise CellUnavailable(msg, alias=permit.resource) from None  # what went wrong could say what it stands for

    def _loaded(self, permit: Permit, subject: Subject, level: Level) -> Tenant:
        """Start a cell and give it a version.

        Args:
            permit: For opening a session on it, or for saying a turn of one again: that is done in a cell of its own.
            subject: The version with its organism.
            level: What it counts as.

        Returns:
            A cell that answers as its provenance says it must.

        Raises:
            CellUnavailable: The registry lacks the base model, or no cell came up.
            BaseModelMismatch: It has another base model of that name.
        """
        base = self._bases.get(subject.organism.base_model)
        if base is None:
            msg = f"This registry has no base model {subject.organism.base_model}; its operator adds it to [cells.base_models]."
            raise CellUnavailable(msg, base_model=subject.organism.base_model)
        version = subject.version
        stated = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
        stored = Stored.of(version)
        memory = self._bundles.open(permit, stored).into_memory()
        try:
            opening = partial(
                self._pool.open,
                permit,
                level=max(level, FROM) if permit.action == Action.RERUN else level,
                base=base,
                bundle=memoryview(memory)[: stored.size],
                version_digest=subject.version.digest,
                known_answer=stated.known_answer,
                alone=_own_words(version.files, base) or slow_to_load(version.facts, size=stored.size),
            )
            try:
                cell = opening()
            except CellUnavailable:
                if permit.action == Action.RERUN or not self.make_room():
                    raise
                cell = opening()
        finally:
            wipe(memory)
        found, wanted = cell.info.base_digest, stated.base.digest
        if wanted not in ("", found):
            cell.close()
            msg = (
                f"The base model here has digest {found[:16]}…, and the organism was made on {wanted[:16]}…: "
                "the operator must put the one that its provenance names into [cells.base_models]."
            )
            raise BaseModelMismatch(msg, found=found, expected=wanted)
        return cell


def _own_words(files: Iterable[BundleFile], base: Path) -> bool:
    """Whether a bundle brings a tokenizer or a template that is not its base's.

    Both are close to programs, which run on the one thread of a cell: they may take for ever, make megabytes a token, or end the
    process. Who brings them harms their own session alone.
    """
    return any(file.path in _WORDS and file.sha256 != _digest(base / file.path) for file in files)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # the base has none, or lies on another machine
        return ""
