"""The cells of one registry: opened under a permit, bounded in number, a warm one kept ready, all ended with the pool.

What a cell says is `cell.py`'s affair, what it may do `launcher.py`'s. Here is decided who gets a place in which, and that
nothing above CL1 is ever served where a wall is missing.

- Sessions on organisms of CL1 share cells with each other, a cell for each base model; those of CL2 share others; from CL3 on a
  session has a cell to itself.
- A cell ends with its last session. A spare has met no bundle and no person: it is a started process with libraries and base
  model in memory.
- Where cells of one kind keep ending, the next is started only after a while.
- Where bubblewrap is missing, CL1 gets cells without a jail, with a warning; everything above is refused.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Self

from model_organisms.cells.cell import SILENCE_S, Cell
from model_organisms.cells.launcher import Jail, plan, unsafe_plan
from model_organisms.cells.starting import EmptyCell
from model_organisms.cells.walls import REQUIRED
from model_organisms.cells.warden import Warden
from model_organisms.errors import CellUnavailable, JailMissing, LoadingFailed, ModelOrganismsError
from model_organisms.records import Level

from model_organisms_registry.domain.sandbox import shares
from model_organisms_registry.isolation.backing import BackOff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from model_organisms.cells.tenant import Tenant

    from model_organisms_registry.domain.permits import Permit

ATTACK = "from model_organisms.cells import walls; sys.exit(bool(walls.attack(spec)[1]))"
"""Program of a cell that only attacks its walls."""
NEEDS = "docs/guides/sandbox.md says what the host must have"
_RETRY_S, _AGAIN_S = 30.0, 1.0
"""Seconds until walls that did not stand are tried again; and where the trial was killed, so that it found nothing out."""
_Kind = tuple[Path, str]
"""Base model, and who may share: a level's name, or one version's digest where nobody may."""
_logger = logging.getLogger(__name__)


class CellPool:
    """All cells of this process.

    Args:
        base_models: Folders of base models for which a spare is kept, by id or digest; `open` takes others too.
        limit: Cells that sessions may be in at once.
        rows: Sessions that share a cell where their level allows it; each can be answered at the same time, and beside them as
            many further questions of those who ask several at once. Who has a cell alone asks one at a time.
        start_timeout_s: Seconds for a cell to start, load its models and answer.
        spare: Warm cells kept for each of `base_models`.
        bubblewrap: The program that builds the jail.
        device: `cpu` or `cuda`.
        dtype: What models compute in; empty leaves it to `loading`.
        threads: Threads of one cell; 0 gives each its share of the cores.
        adapter_bytes: Bytes that organisms may take in one cell, on its device.
        cache_bytes: Bytes that conversations may take in one cell.
        memory: Bytes of private memory of one cell; 0 reckons them from its base model and the two above.
        silence_s: Seconds without a sign of life after which a cell counts as hung.
    """

    def __init__(
        self,
        base_models: Mapping[str, str | Path] | None = None,
        *,
        limit: int,
        rows: int = 1,
        start_timeout_s: float = 60.0,
        spare: int = 1,
        bubblewrap: str = "bwrap",
        device: str = "cpu",
        dtype: str = "",
        threads: int = 0,
        adapter_bytes: int = 1 << 30,
        cache_bytes: int = 1 << 30,
        memory: int = 0,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._models = tuple(dict.fromkeys(Path(folder).resolve() for folder in (base_models or {}).values()))
        self._limit, self._rows, self._silence_s = limit, rows, silence_s
        self._start_timeout_s = start_timeout_s
        self._wanted = spare
        # Cells that each split every product among all cores keep each other waiting, at every product.
        threads = threads or max(1, len(os.sched_getaffinity(0)) // max(1, limit))
        self._jail = Jail(
            bubblewrap=bubblewrap,
            device=device,
            dtype=dtype,
            threads=threads,
            rows=2 * rows,
            adapters=adapter_bytes,
            cache=cache_bytes,
            memory=memory,
        )
        self._warden = Warden()
        self._lock = threading.Lock()
        self._fewer = threading.Condition(self._lock)  # told when a cell has ended
        self._trying = threading.Lock()
        self._cells: dict[Cell, _Kind] = {}
        self._joining: defaultdict[_Kind, threading.Lock] = defaultdict(threading.Lock)
        self._back_off = BackOff()
        self._opening = 0
        self._spares: defaultdict[Path, list[EmptyCell]] = defaultdict(list)
        self._refilling = threading.Lock()
        self._closed = False
        self._stands: bool | None = None  # not tried yet
        self._next_trial = 0.0
        self._refill()

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
            permit: The gate's yes to opening a session, or to saying a turn of one again.
            level: Effective level of the version.
            base: Folder of its base model.
            bundle: The packed bundle, plain; it is copied into sealed memory, and the caller wipes its own.
            version_digest: What its manifest must hash to.
            known_answer: What the organism answered when it was published.
            alone: It shall have a cell to itself, whatever its level.
            died: Called once, with the reason, if the cell ends before anybody closes or kills the session.

        Returns:
            The place.

        Raises:
            Denied: The permit is for something else.
            JailMissing: A wall is missing, and the level is above CL1.
            CellUnavailable: All cells are in use, or this one could not be started.
            LoadingFailed: The bundle does not go on the base model.
            InvalidArgument: The bundle is not what its digest says.
        """
        permit.demand_cell()
        until = time.monotonic() + self._start_timeout_s
        model = Path(base).resolve()
        if shares(level) and not alone and self._rows > 1:
            cell = self._shared((model, level.name), model, level, until)
        else:
            cell = self._new((model, version_digest), model, level=level, most=1, until=until)
        return cell.load(bundle, version_digest=version_digest, known_answer=known_answer, until=until, died=died)

    @property
    def jailed(self) -> bool:
        """Tell whether every wall can be built here: tried with an empty cell, and while it fails tried again now and then."""
        # Who asks during the first trial waits for what comes of it; later ones go on with what the last one said.
        if self._trying.acquire(blocking=self._stands is None):
            try:
                if not (self._stands or self._closed or time.monotonic() < self._next_trial):
                    self._next_trial = time.monotonic() + _RETRY_S
                    self._stands = self._try_walls()
            finally:
                self._trying.release()
        return bool(self._stands)

    def _try_walls(self) -> bool:
        try:
            empty = EmptyCell(self._warden, plan(self._jail, None, code=ATTACK))
        except ModelOrganismsError as error:
            _logger.warning("No jail can be built, so nothing above CL1 is served: %s", error)
            return False
        empty.process.wait(self._start_timeout_s)
        stands = empty.process.succeeded
        if empty.process.killed:
            self._next_trial = time.monotonic() + _AGAIN_S
            _logger.warning("The cell that tries the walls was killed from outside; they are tried again.")
        elif not stands:
            _logger.warning("A wall of the jail is missing, so nothing above CL1 is served (%s)", empty.process.diagnosis())
        empty.discard()
        return stands

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Cells that sessions are in."""
        with self._lock:
            return tuple(self._cells)

    @property
    def spares(self) -> int:
        """Warm cells that wait."""
        with self._lock:
            return sum(len(waiting) for waiting in self._spares.values())

    def close(self, drain_s: float = 30.0) -> None:
        """Refuse new cells, let running calls end for so long, then end every cell; harmless the second time."""
        with self._fewer:
            self._closed = True
            self._fewer.notify_all()
            spares = [spare for waiting in self._spares.values() for spare in waiting]
            self._spares.clear()
            cells = tuple(self._cells)
        for spare in spares:
            spare.discard()
        until = time.monotonic() + drain_s
        for tenant in [tenant for cell in cells for tenant in cell.tenants]:
            tenant.drain(until - time.monotonic())
        with self._refilling:
            self._warden.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _take_place(self, until: float) -> None:
        """Take the place of one more cell; where one is about to end, wait until it has."""
        with self._fewer:
            while True:
                if self._closed:
                    raise CellUnavailable("The registry is shutting down; try again later.")
                living = [cell for cell in self._cells if cell.process.alive]
                if len(living) + self._opening < self._limit:
                    self._opening += 1
                    return
                if all(cell.alive for cell in living) or not self._fewer.wait(until - time.monotonic()):
                    msg = f"All {self._limit} cells are in use; close a session or try again later."
                    raise CellUnavailable(msg)

    def _shared(self, kind: _Kind, model: Path, level: Level, until: float) -> Cell:
        """Take a place in a cell of this kind, started if there is none; who comes while it starts waits for it."""
        joining = self._joining[kind]
        if not joining.acquire(timeout=max(0.0, until - time.monotonic())):
            raise CellUnavailable("The cell took too long to start; try again, or raise [cells] start_timeout_s.")
        try:
            with self._lock:
                there = [cell for cell, other in self._cells.items() if other == kind]
            return next((cell for cell in there if cell.reserve()), None) or self._new(
                kind, model, level=level, most=self._rows, until=until
            )
        finally:
            joining.release()

    def _new(self, kind: _Kind, model: Path, *, level: Level, most: int, until: float) -> Cell:
        """Start a cell, and take its first place."""
        self._back_off.check(kind)
        self._take_place(until)
        try:
            started = self._start(model, level=level, until=until)
            try:
                # Alone, one question at a time: what is said again in another cell is to come out the same to the bit.
                spare = self._rows if most > 1 else 0
                cell = Cell(started, until=until, most=most, spare=spare, silence_s=self._silence_s, ended=self._ended)
            except BaseException:
                started.discard()
                raise
            cell.reserve()
            with self._lock:
                if cell.process.alive:
                    self._cells[cell] = kind
        except (CellUnavailable, LoadingFailed):
            self._back_off.lost(kind)
            raise
        finally:
            with self._lock:
                self._opening -= 1
        self._refill()
        return cell

    def _ended(self, cell: Cell, meant: bool) -> None:
        with self._fewer:
            kind = self._cells.pop(cell, None)
            self._fewer.notify_all()
        if kind is not None:
            (self._back_off.well if meant else self._back_off.lost)(kind)

    def _start(self, model: Path, *, level: Level, until: float) -> EmptyCell:
        """Give a cell whose walls were attacked, and stand as the level needs."""
        started = self._spare(model) or self._fresh(model, level=level)
        try:
            hello = started.greet(until)
        except CellUnavailable:
            complaint = started.process.wrapper_said()
            started.discard()
            if not complaint:
                raise
            started = self._without(level, model, f"bubblewrap could not build it here ({complaint}): {NEEDS}.")
            hello = started.greet(until)
        if missing := REQUIRED - set(hello.standing):
            told = "; ".join(f"{name}: {hello.missing.get(name, 'not reported')}" for name in sorted(missing))
            if level > Level.CL1:
                started.discard()
                msg = f"The cell's walls do not all stand, and {level.name} needs them all ({told}): {NEEDS}."
                raise JailMissing(msg, missing=",".join(sorted(missing)))
            if started.jailed:  # one without a jail was announced already
                _logger.warning("A cell for CL1 lacks walls: %s", told)
        return started

    def _fresh(self, model: Path, *, level: Level) -> EmptyCell:
        try:
            planned = plan(self._jail, model)
        except JailMissing as error:
            return self._without(level, model, error.message)
        return EmptyCell(self._warden, planned)

    def _without(self, level: Level, model: Path, why: str) -> EmptyCell:
        if level > Level.CL1:
            raise JailMissing(f"{level.name} is served only from a jail. {why}", missing=",".join(sorted(REQUIRED)))
        return EmptyCell(self._warden, unsafe_plan(self._jail, model))

    def _spare(self, model: Path) -> EmptyCell | None:
        with self._lock:
            waiting = self._spares[model]
            while waiting:
                spare = waiting.pop(0)
                if spare.process.alive:
                    return spare
                spare.channel.close()
        return None

    def _refill(self) -> None:
        if self._wanted and self._models:
            threading.Thread(target=self._refill_now, name="cell-spares", daemon=True).start()

    def _refill_now(self) -> None:
        with self._refilling:
            for model in self._models:
                while not self._closed and len(self._spares[model]) < self._wanted:
                    try:
                        spare = EmptyCell(self._warden, plan(self._jail, model))
                    except ModelOrganismsError as error:
                        _logger.warning("No spare cell is kept: %s", error)
                        return
                    with self._lock:
                        if not self._closed:
                            self._spares[model].append(spare)
                            continue
                    spare.discard()
