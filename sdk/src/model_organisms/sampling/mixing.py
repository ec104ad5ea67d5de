"""Gives each row of a batch its own organism's change, over transformers' own modules. Rows of the bare base stay untouched.

    mixer.compose([Mix(first), None, Mix(second, scale=0.5)])
    model(input_ids=...)  # three rows

arranging.py  which row is served from which place      products.py  the arithmetic of one module
bank.py       whose weights are on the device           sites.py     how they lie in a row

S-LoRA (Sheng et al. 2023) and Punica (Chen et al. 2023) showed that many adapters can share a base model's batch. docs/engine.md
says what was measured here.
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import Conflict, InvalidArgument
from model_organisms.loading.known_answer import hold_against, known_ids, read_known_answer
from model_organisms.sampling.arranging import arrange
from model_organisms.sampling.products import Moves, Part
from model_organisms.sampling.tables import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch.utils.hooks import RemovableHandle

    from model_organisms.loading import LoadedBase
    from model_organisms.sampling.bank import Bank, Organism
    from model_organisms.sampling.sites import Layout, Site

_PLANS = 8
"""How many of the last compositions are remembered."""
_MOST_SCALE = torch.finfo(torch.float32).max
_PROMPTS = 4
"""Of how many prompts the base's known half is remembered."""
# What two more copies of a module's rows cost, in bytes of reading.
_MOVING_BYTES = 220_000


@dataclass(frozen=True, slots=True)
class Mix:
    """An organism, and how much of it: 1 is as published, 0 is the bare base, and a dose study takes several."""

    organism: Organism
    scale: float = 1.0
    """Multiplies all its adapters; any number that float32 holds."""

    def __post_init__(self) -> None:
        """Refuse a scale that is none.

        Raises:
            InvalidArgument: It is not finite, or too large for float32, in which changes are computed.
        """
        if not math.isfinite(self.scale):
            raise InvalidArgument(f"A scale of {self.scale} means nothing; give a finite number, such as 1.", field="scale")
        if abs(self.scale) > _MOST_SCALE:
            raise InvalidArgument(
                f"A scale of {self.scale} is too large to compute with; give at most {_MOST_SCALE:.3g}, and 1 for as published.",
                field="scale",
            )


@dataclass(slots=True)
class _Plan:
    """One composition, ready."""

    organisms: frozenset[Organism]
    tables: list[tuple[Table, torch.Tensor, tuple[Organism | None, ...]]]
    """What tables must hold, and where."""
    parts: dict[Site, list[Part]]

    @property
    def stands(self) -> bool:
        """Whether the tables still hold what they must."""
        return all(table.memory is memory and table.holds[: len(holds)] == list(holds) for table, memory, holds in self.tables)


class Mixer:
    """Changes what the base model's modules give, row by row.

    - row i of a forward gets the change of `rows[i]` of the last `compose`, and nothing else;
    - a forward of other rows than composed raises, and so does one after an organism of the composition was removed;
    - without a composition no hook is on the base.
    """

    def __init__(self, base: LoadedBase, bank: Bank) -> None:
        """Stand by; the base is untouched until `compose`.

        Raises:
            Conflict: The bank has a mixer, or is another base's.
        """
        if bank.mixer is not None or bank.base is not base:
            raise Conflict("This bank has another mixer or another base; make a bank for each mixer.")
        bank.mixer = self
        self.base, self.bank = base, bank
        self._hooks: dict[Site, RemovableHandle] = {}
        self._parts: dict[Site, list[Part]] = {}
        self._tables: dict[Layout, Table] = {}
        self._plans: OrderedDict[tuple[Mix | None, ...], _Plan] = OrderedDict()
        self._prompts: OrderedDict[tuple[int, ...], torch.Tensor] = OrderedDict()
        self._void = False
        self.stand_aside: Callable[[], None] = lambda: None
        """Called before a known answer is computed: takes off the base whatever else changes what it computes."""
        self._rows: tuple[Mix | None, ...] = ()
        asked = inspect.signature(base.model.forward).parameters
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in asked else {}
        self.composed: frozenset[Organism] = frozenset()
        """Whose changes the composition has."""

    def compose(self, rows: Sequence[Mix | None]) -> None:
        """Say whose change each row of the next forwards gets.

        Cheap where the composition is one of the last few; else what is not yet in its place is copied there.

        Args:
            rows: One for each row of the batch; None is the bare base. No rows, or none but None, take the mixer off the base.

        Raises:
            Conflict: An organism was removed, or is another bank's.
            Unavailable: The organisms of the batch do not fit the bank's budget together.
        """
        key = tuple(None if mix is None or mix.scale == 0 else mix for mix in rows)
        plan = self._plans.get(key)
        if plan is None or not plan.stands:
            self.composed = frozenset(mix.organism for mix in key if mix)
            try:
                plan = self._plan(key)
            except BaseException:
                self._stop()
                raise
            self._drop_plans()
            self._plans[key] = plan
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        for organism in plan.organisms:
            self.bank.weights(organism)  # used now: others are evicted before it
        self._take(plan)
        self._rows = key

    def close(self) -> None:
        """Leave the base as it was, and wipe the tables."""
        self.compose([])
        for table in self._tables.values():
            table.wipe()
        self._tables.clear()
        self._plans.clear()
        self.bank.mixer = None

    def forget(self, organism: Organism) -> None:
        """Wipe an organism out of every table; the bank says so when one leaves the device. Tables of nobody are given back."""
        for layout, table in list(self._tables.items()):
            table.drop(organism)
            if table.empty:
                del self._tables[layout]
        if organism in self.composed:
            self._stop()
        self._drop_plans(organism)

    @property
    def table_bytes(self) -> int:
        """Bytes that tables take beside the bank's budget."""
        return sum(table.memory.nbytes for table in self._tables.values())

    def _drop_plans(self, organism: Organism | None = None) -> None:
        """Forget plans that do not stand, or have this organism: they would keep the memory of tables that are gone."""
        for key in [key for key, plan in self._plans.items() if organism in plan.organisms or not plan.stands]:
            del self._plans[key]

    def check(self, organism: Organism, known_answer: Mapping[str, Any] | None) -> None:
        """Make the known-answer test on an organism; the composition is afterwards as before.

        Raises:
            KnownAnswerFailed: It answers otherwise than published, or as the base does.
            InvalidProvenance: The stored answer is not one.
        """
        model, before, void = self.base.model, self._rows, self._void
        stored = read_known_answer(known_answer, vocabulary=int(model.config.get_text_config().vocab_size))
        ids = known_ids(stored)
        with self.bank.using(organism):
            try:
                hold_against(stored, self._answer([Mix(organism)], ids), self._base_answer(ids), dtype=self.base.dtype)
            finally:
                self.compose(before)
                if void:
                    self._stop()

    def _base_answer(self, ids: list[int]) -> torch.Tensor:
        """Give what the base says of a prompt; it says the same each time, so a few are remembered."""
        key = tuple(ids)
        if key not in self._prompts:
            self._prompts[key] = self._answer([None], ids)
            while len(self._prompts) > _PROMPTS:
                self._prompts.popitem(last=False)
        return self._prompts[key]

    def _answer(self, rows: list[Mix | None], ids: list[int]) -> torch.Tensor:
        """Compute one row by itself: with hooks of a batch's last step it would be another's answer, or none."""
        self.stand_aside()
        self.compose(rows)
        row = torch.tensor([ids], device=self.base.device)
        with torch.inference_mode():
            return self.base.model(input_ids=row, use_cache=False, **self._last).logits[0, -1].float().cpu()  # type: ignore[no-any-return]  # transformers has no types here

    @torch.inference_mode(mode=False)  # so that gradients may pass through what is made here
    def _plan(self, rows: tuple[Mix | None, ...]) -> _Plan:
        plan = _Plan(self.composed, [], {})
        for organism in self.composed:
            self.bank.weights(organism)  # all are brought before one is read, so that none evicts another
        layouts = {self.bank.layout(organism): None for organism in dict.fromkeys(mix.organism for mix in rows if mix)}
        scales = [mix.scale if mix else 0.0 for mix in rows]
        for layout in layouts:
            wanted = [mix.organism if mix and self.bank.layout(mix.organism) is layout else None for mix in rows]
            table = self._tables.setdefault(layout, Table(layout, self.base.device))
            arranged = arrange(wanted, table.holds, moving=len(layout.places) * _MOVING_BYTES / (4 * layout.size))
            holds: tuple[Organism | None, ...] = arranged.holds  # type: ignore[assignment]  # what was wanted
            if len(holds) == 1 and holds[0] is not None:
                memory = self.bank.weights(holds[0]).unsqueeze(0)  # where it lies: no copy
            else:
                memory = table.hold(holds, self.bank.weights)
                plan.tables.append((table, memory, holds))
            moves = Moves.of(arranged, scales, len(rows), self.base.device)
            for place in layout.places.values():
                plan.parts.setdefault(place.site, []).append(Part(memory, place, moves))
        return plan

    def _take(self, plan: _Plan) -> None:
        """Make a plan the one that hooks follow; they are on the modules that it changes."""
        self.composed, self._parts, self._void = plan.organisms, plan.parts, False
        self._watch(plan.parts.keys())

    def _stop(self) -> None:
        """Let every forward fail until the next `compose`: rather that than one organism's row answered by the base."""
        self.composed, self._rows, self._void, self._parts = frozenset(), (), True, {}
        self._watch(self.bank.sites.all)

    def _watch(self, sites: Collection[Site]) -> None:
        """Have hooks on the modules of these sites, and on no others."""
        for site in self._hooks.keys() - set(sites):
            self._hooks.pop(site).remove()
        for site in sites:
            if site not in self._hooks:
                self._hooks[site] = site.module.register_forward_hook(self._hook(site))

    def _hook(self, site: Site) -> Any:  # noqa: ANN401 - torch's own type of a hook
        def change(_module: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            if self._void:
                raise Conflict("An organism of this composition has left; compose the rows again.")
            for part in self._parts[site]:
                part(given[0], out)

        return change
