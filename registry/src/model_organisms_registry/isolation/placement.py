"""Where sessions are put, as the workflows see it: a pool gives a session its place, whichever machine the place is on.

Nothing here starts anything. `pool.py` starts cells on this machine; a cluster's pool starts the same cells on others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from model_organisms.cells.frames import CellInfo, Directed, Numbers, Piece
    from model_organisms.records import Inquiry, Level, Message, NewDirection, SamplingParameters

    from model_organisms_registry.domain.permits import Permit


class Tenant(Protocol):
    """One session's place in a cell; a call that finds it busy waits. `cancel`, `close` and `kill` come from any thread."""

    @property
    def walls(self) -> tuple[str, ...]:
        """Walls that the cell found standing when it attacked them."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Required walls that it lacks."""

    @property
    def jailed(self) -> bool:
        """Tell whether it lacks none."""

    @property
    def alone(self) -> bool:
        """Tell whether no other session is ever in the same cell."""

    @property
    def info(self) -> CellInfo:
        """What was loaded, for receipts."""

    @property
    def version_digest(self) -> str:
        """Digest of the bundle."""

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""

    def sample(self, messages: Sequence[Message], parameters: SamplingParameters, *, max_seconds: float) -> Iterator[Piece]:
        """Draw text; the last piece has a finish reason, `deadline` when `max_seconds` were over. Leaving early stops the work.

        Raises:
            CellUnavailable: The cell was lost, or the session's place in it is gone.
            InvalidArgument: The conversation does not fit the model.
        """

    def probe(self, messages: Sequence[Message], *, inquiry: Inquiry | None = None, max_seconds: float = 60.0) -> Numbers:
        """Ask for numbers, unrounded; without an inquiry, those of the next-token distribution.

        Raises:
            CellUnavailable: The cell was lost, or the session's place in it is gone.
            InvalidArgument: The conversation does not fit the model, or the inquiry names what is not there.
        """

    def direct(self, sought: NewDirection, *, max_seconds: float = 60.0) -> Directed:
        """Have a direction kept in the cell, for this session alone.

        Raises:
            CellUnavailable: The cell was lost, or the session's place in it is gone.
            InvalidArgument: It is none, or names what is not there.
        """

    def cancel(self) -> None:
        """Stop what is running; each call ends with a last piece. Harmless if none is."""

    def close(self, *, wait: bool = True) -> None:
        """Give the place up; a call that is running loses it. Waits until the organism is gone, or leaves that to the cell."""

    def kill(self) -> None:
        """Give it up at once."""

    def drain(self, seconds: float) -> None:
        """Wait so long for what is running, then close."""


class Pool(Protocol):
    """All cells that this process may use."""

    def open(
        self,
        permit: Permit,
        *,
        level: Level,
        base: str | Path,
        bundle: memoryview,
        version_digest: str,
        known_answer: Mapping[str, object] | None = None,
        alone: bool = False,
        died: Callable[[str], None] | None = None,
    ) -> Tenant:
        """Give a session its place in a cell, with its bundle loaded.

        Args:
            permit: The gate's yes to opening a session.
            level: Effective level of the version: it decides whose company the session may have.
            base: Folder of its base model.
            bundle: The packed bundle, plain; it is copied, and the caller wipes its own.
            version_digest: What its manifest must hash to.
            known_answer: What the organism answered when it was published.
            alone: It shall have a cell to itself, whatever its level.
            died: Called once, with the reason, if the place is lost before anybody closes or kills it.

        Returns:
            The place.

        Raises:
            Denied: The permit is for something else.
            JailMissing: A wall is missing, and the level is above CL1.
            CellUnavailable: All cells are in use, or this one could not be started.
            LoadingFailed: The bundle does not go on the base model.
            InvalidArgument: The bundle is not what its digest says.
        """

    @property
    def jailed(self) -> bool:
        """Tell whether every wall can be built where cells are started."""

    @property
    def cells(self) -> Collection[object]:
        """Cells that sessions are in."""

    @property
    def spares(self) -> int:
        """Warm cells that wait."""

    def close(self, drain_s: float = 30.0) -> None:
        """Refuse new sessions, let running calls end for so long, then end every cell; harmless the second time."""
