"""The keys of a registry, whoever keeps them: opens the keepers that the settings name, and follows a key through its rotations.

What is kept hangs on a key by its id; behind it stand its rotations ID, ID.2, ID.3, …, of which the newest counts and the others
are destroyed. A data key's record names the rotation that wrapped it (`sealed.py`), and its first byte the keeper. So everything
opens while keys move from one keeper to another, or a rotation was cut off.

- A rotation is made before the older one is destroyed, and destroyed for good only when nothing is under it (`turn`, `retire`).
- Where one keeper has a key's mark, it is destroyed in all.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import AlreadyExists, ConfigurationInvalid, NotFound, VerificationFailed

from model_organisms_registry.storage.key_files import FileKeys
from model_organisms_registry.storage.keys import FORMATS, KeyState, refuse, refuse_to_make

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms_registry.config import Keys as Settings
    from model_organisms_registry.storage.keys import Keys


def named(key_id: str, rotation: int) -> str:
    """Name a rotation of a key; the first bears the key's own id."""
    return key_id if rotation == 1 else f"{key_id}.{rotation}"


def parsed(kek_id: str) -> tuple[str, int]:
    """Say which key a rotation is of, and the how manieth."""
    key_id, _, rotation = kek_id.partition(".")
    return key_id, int(rotation or "1")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key, wrapped."""

    kek: str
    """The rotation that wrapped it."""
    data: bytes


class Keyring:
    """Keys by the ids of what hangs on them.

    Args:
        keepers: The first makes new keys.
    """

    def __init__(self, *keepers: Keys) -> None:
        """Keep them."""
        self._keepers = {keeper.name: keeper for keeper in keepers}
        self._makes = keepers[0]
        self._newest: dict[str, int] = {}

    @property
    def keepers(self) -> tuple[Keys, ...]:
        """Who keeps the keys; the first makes new ones."""
        return tuple(self._keepers.values())

    def create(self, key_id: str) -> None:
        """Make a key.

        Raises:
            AlreadyExists: There is one.
            Conflict: There was one, and it was destroyed.
            Unavailable: A keeper cannot be reached.
        """
        refuse_to_make(self.state(key_id), key_id)
        self._makes.create(key_id)

    def state(self, key_id: str) -> KeyState:
        """Tell where a key stands, by its newest rotation.

        Raises:
            Unavailable: A keeper cannot be reached.
        """
        return self._found(key_id)[1]

    def held(self, kek_id: str) -> KeyState:
        """Tell where one rotation stands."""
        states = {keeper.state(kek_id) for keeper in self._keepers.values()}
        for state in (KeyState.DESTROYED, KeyState.LIVE):
            if state in states:
                return state
        return KeyState.MISSING

    def wrap(self, key_id: str, data_key: bytes, aad: bytes) -> Wrapped:
        """Encrypt a data key with a key's newest rotation.

        Args:
            key_id: The key.
            data_key: 32 bytes.
            aad: What it is bound to; `unwrap` must be told the same.

        Raises:
            NotFound: There is no such key, or no longer.
            Unavailable: A keeper cannot be reached.
        """
        try:
            return self.wrap_under(named(key_id, self._newest.get(key_id, 1)), data_key, aad)
        except NotFound:  # turned since, or destroyed, or never there
            rotation, state = self._found(key_id)
            refuse(state, key_id)
            return self.wrap_under(named(key_id, rotation), data_key, aad)

    def wrap_under(self, kek_id: str, data_key: bytes, aad: bytes) -> Wrapped:
        """Encrypt a data key with one rotation."""
        keeper = self._makes
        if len(self._keepers) > 1:  # each keeper looks for its own marks only
            refuse(self.held(kek_id), kek_id)
            keeper = next((each for each in self._keepers.values() if each.state(kek_id) is KeyState.LIVE), keeper)
        return Wrapped(kek_id, keeper.wrap(kek_id, data_key, aad))

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Decrypt a data key.

        Raises:
            NotFound: Its key was destroyed, or is missing.
            VerificationFailed: It was not wrapped by this key for this purpose.
            Unavailable: A keeper cannot be reached.
        """
        name = keeper_of(wrapped)
        if name not in self._keepers:
            msg = f"A data key under {wrapped.kek} is not of any provider that registry.toml names; add its own to [keys] also."
            raise VerificationFailed(msg, key=wrapped.kek)
        if len(self._keepers) > 1:
            refuse(self.held(wrapped.kek), wrapped.kek)
        return self._keepers[name].unwrap(wrapped.kek, wrapped.data, aad)

    def destroy(self, key_id: str) -> None:
        """Destroy a key for good, all rotations of it; doing it again, or to a key never made, is no error."""
        last, _ = self._found(key_id)
        for rotation in range(1, last + 1):
            self._destroy(named(key_id, rotation))
        # Looked for only now: a rotation that was cut off, or is made meanwhile; one made after this look, `turn` takes back.
        while self.held(named(key_id, last + 1)) is KeyState.LIVE:
            last += 1
            self._destroy(named(key_id, last))

    def turn(self, key_id: str, to: str) -> str:
        """Make the next rotation of a key, or find the one that an attempt before made.

        Args:
            key_id: A key that is live.
            to: The keeper that makes it.

        Returns:
            Its id, for `wrap_under`; then `retire` the older.

        Raises:
            NotFound: There is no such key, or it is destroyed meanwhile: then the next rotation is too.
        """
        rotation, state = self._found(key_id)
        refuse(state, key_id)
        older = named(key_id, rotation)
        keeper, fresh = self._keeper(to), named(key_id, rotation + 1)
        while self.held(fresh) is not KeyState.MISSING and keeper.state(fresh) is not KeyState.LIVE:
            rotation += 1  # an attempt before was on its way to another keeper
            fresh = named(key_id, rotation + 1)
        with suppress(AlreadyExists):
            keeper.create(fresh)
        if self.held(older) is KeyState.DESTROYED:  # by someone who may have looked for this one too early
            self.destroy(key_id)
            refuse(KeyState.DESTROYED, key_id)
        return fresh

    def retire(self, fresh: str) -> None:
        """Destroy every rotation before one: nothing may be under them any more."""
        key_id, newest = parsed(fresh)
        for rotation in range(1, newest):
            if self.held(named(key_id, rotation)) is not KeyState.DESTROYED:
                self._destroy(named(key_id, rotation))
        self._newest[key_id] = newest

    def carry_marks(self, to: str) -> int:
        """Set the marks of what was destroyed in one keeper too, so that the others can go; tells how many there are."""
        marks = {mark for keeper in self._keepers.values() for mark in keeper.destroyed()}
        for mark in sorted(marks - set(self._keeper(to).destroyed())):
            self._keeper(to).destroy(mark)
        return len(marks)

    def finish(self) -> None:
        """Finish the destructions that a crash interrupted."""
        for keeper in self._keepers.values():
            keeper.finish()

    def close(self) -> None:
        """Let connections go."""
        for keeper in self._keepers.values():
            keeper.close()

    def _found(self, key_id: str) -> tuple[int, KeyState]:
        """Find the rotation that counts: the first that is not destroyed, or the last that is."""
        # Destroyed is for ever, so a look may begin where the last one ended.
        rotation = self._newest.get(key_id, 1)
        state = self.held(named(key_id, rotation))
        while state is KeyState.DESTROYED:
            after = self.held(named(key_id, rotation + 1))
            if after is KeyState.MISSING:
                break
            rotation, state = rotation + 1, after
            self._newest[key_id] = rotation
        return rotation, state

    def _destroy(self, kek_id: str) -> None:
        for keeper in self._keepers.values():
            keeper.destroy(kek_id)

    def _keeper(self, name: str) -> Keys:
        if name not in self._keepers:
            known = ", ".join(self._keepers)
            raise ConfigurationInvalid(f"registry.toml does not name the provider '{name}' under [keys]; it names {known}.")
        return self._keepers[name]


def keeper_of(wrapped: Wrapped) -> str:
    """Say which keeper wrapped a data key, as far as its first byte can be believed."""
    return FORMATS.get(wrapped.data[0] if wrapped.data else 0, "")


def open_keyring(settings: Settings, folder: Path) -> Keyring:
    """Open the keepers that the settings name.

    Args:
        settings: The table `[keys]`.
        folder: Where the provider `file` has its keys.

    Raises:
        ConfigurationInvalid: A provider that there is not, or settings of one that cannot be used.
        Unavailable: A keeper cannot be reached.
    """
    return Keyring(*(_keeper(name, settings, folder) for name in settings.providers))


def _keeper(name: str, settings: Settings, folder: Path) -> Keys:
    if name == "file":
        return FileKeys(folder)
    # What the others need is installed only where they are used.
    if name == "pkcs11":
        from model_organisms_registry.storage.key_token import TokenKeys

        return TokenKeys(settings.pkcs11)
    if name == "vault":
        from model_organisms_registry.storage.key_vault import VaultKeys

        return VaultKeys(settings.vault)
    raise ConfigurationInvalid(f"'{name}' keeps no keys; set [keys] provider to file, pkcs11 or vault.")
