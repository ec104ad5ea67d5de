"""Checks what somebody wrote for a suite, field by field; a refusal names the place. The grammar is `formats.strict_yaml`'s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.formats import strict_yaml

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

MOST_ITEMS = 1_000
MOST_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Fields:
    """Reads one kind of file."""

    what: str
    """What it is, for messages: "The testbed"."""
    most_bytes: int
    strip: bool = False
    """Whether the spaces around a text are nothing."""

    def load(self, path: str | Path) -> Any:  # noqa: ANN401 - as JSON
        """Read a file.

        Raises:
            InvalidArgument: It cannot be read, or is not plain YAML.
        """
        try:
            with Path(path).open("rb") as file:
                data = file.read(self.most_bytes + 1)
        except (OSError, ValueError) as error:  # a path with a null character is a ValueError
            why = getattr(error, "strerror", None) or error
            raise InvalidArgument(f"{self.what} '{path}' cannot be read ({why}); check the path.") from error
        return self.parse(data, f"{self.what} '{path}'")

    def parse(self, data: bytes, what: str = "") -> Any:  # noqa: ANN401 - as JSON
        """Read the bytes of a file.

        Raises:
            InvalidArgument: They are not plain YAML.
        """
        return strict_yaml.parse(data, what=what or self.what, error=InvalidArgument, limit=self.most_bytes, references=True)

    def wrong(self, where: str, wanted: str) -> InvalidArgument:
        """Say what must stand at a place."""
        return InvalidArgument(f"{self.what} is refused: {where} must be {wanted}.")

    def mapping(
        self, raw: object, where: str, *, needed: AbstractSet[str], allowed: AbstractSet[str] = frozenset()
    ) -> dict[str, Any]:
        """Give a map that has the fields needed, and no others than those allowed."""
        if not isinstance(raw, dict) or not needed <= raw.keys():
            raise self.wrong(where, f"a map with {', '.join(sorted(needed))}")
        if strange := raw.keys() - needed - allowed:
            known = ", ".join(sorted(needed | allowed))
            raise self.wrong(where, f"without the field {min(strange)[:60]!a}, which is not known; known are {known}")
        return raw

    def text(self, raw: object, where: str) -> str:
        """Give a text that says something."""
        if not isinstance(raw, str) or not raw.strip() or len(raw) > MOST_TEXT:
            raise self.wrong(where, f"a text of 1 to {MOST_TEXT:,} characters")
        return raw.strip() if self.strip else raw

    def texts(self, raw: object, where: str) -> tuple[str, ...]:
        """Give texts of a list that has some."""
        if not isinstance(raw, list) or not 0 < len(raw) <= MOST_ITEMS:
            raise self.wrong(where, f"a list of 1 to {MOST_ITEMS:,} texts")
        return tuple(self.text(one, where) for one in raw)
