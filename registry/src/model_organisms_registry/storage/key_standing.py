"""How the keys of versions stand, for who checks a registry: destroyed is not lost, silence is neither. Nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import ConfigurationInvalid, NotFound, Unavailable, VerificationFailed
from model_organisms.records import VersionState

from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.keyring import open_keyring, parsed
from model_organisms_registry.storage.keys import KeyState
from model_organisms_registry.storage.sealed import SealedStore, key_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from model_organisms.records import Version

    from model_organisms_registry.config import Keys as Settings
    from model_organisms_registry.storage.blobs import Blobs


@dataclass(slots=True)
class Standing:
    """Names of versions by how their keys stand; those whose keys live are not named."""

    destroyed: list[str] = field(default_factory=list)
    """Two people had it destroyed: nothing opens it, here or from any copy."""
    unsaid: list[str] = field(default_factory=list)
    """Destroyed, and this catalog does not say so: it is an older copy, or somebody did it past the registry."""
    doomed: list[str] = field(default_factory=list)
    """To be destroyed, and its key lives yet: the next start destroys it."""
    outdated: list[str] = field(default_factory=list)
    """Its key record is from before the last `rewrap`: this is an older copy, and the newer record opens it."""
    lost: list[str] = field(default_factory=list)
    """Its key is not there, and nothing says that it was destroyed."""
    broken: list[str] = field(default_factory=list)
    """Its key record is not what was stored."""
    unasked: str = ""
    """Why the keys could not be asked for; empty where they were."""

    def as_lines(self) -> list[str]:
        """For people: what is meant so, and what to do where it is not. What is wrong, the findings say."""
        return [
            *(f"destroyed: {version}: its key was destroyed, so nothing opens it" for version in self.destroyed),
            *(
                f"destroyed: {version}: and this catalog does not say so; it is an older copy, or look into it"
                for version in self.unsaid
            ),
            *(f"unfinished: the destruction of {version}; the next start finishes it" for version in self.doomed),
            *(
                f"outdated: {version}: its key record is older than the last rewrap; copy the newer one"
                for version in self.outdated
            ),
            *([f"keys: not asked: {self.unasked}"] if self.unasked else []),
        ]

    def add(self, version: Version, kek: KeyState, newest: KeyState) -> None:
        """Say how the key of a version stands: of the rotation that its record names, and of the newest."""
        doomed = version.state is VersionState.DESTROYED
        if kek is KeyState.MISSING:
            self.lost.append(version.name)
        elif kek is KeyState.LIVE:
            self.doomed += [version.name] if doomed else []
        elif newest is KeyState.LIVE:
            self.outdated.append(version.name)
        else:
            (self.destroyed if doomed else self.unsaid).append(version.name)


def ask(settings: Settings, folder: Path, blobs: Blobs, versions: Iterable[Version]) -> Standing:
    """Ask whoever keeps the keys.

    Args:
        settings: The table `[keys]`.
        folder: Where the provider `file` has its keys.
        blobs: Where the key records are.
        versions: Whose; one whose record is missing is passed over.
    """
    said = Standing()
    if settings.providers == ("file",) and not folder.exists():
        said.unasked = f"{folder} is not here; a copy holds no keys, a restored registry must be given them"
        return said
    try:
        keyring = open_keyring(settings, folder)
        sealed = SealedStore(blobs, keyring)
        for version in versions:
            try:
                kek = sealed.record(key_record(Stored.of(version).path)).kek
            except NotFound:
                continue
            except VerificationFailed:
                said.broken.append(version.name)
                continue
            said.add(version, keyring.held(kek), keyring.state(parsed(kek)[0]))
        keyring.close()
    except (ConfigurationInvalid, Unavailable) as error:
        said.unasked = error.message
    return said
