"""Keeps the weights of many organisms ready on one base model's device: who comes, who stays within the budget, who is wiped.

An organism's factors are one flat row (`sites.py`), so coming is one pass over its bytes and going is one wipe. Which row of a
batch gets whose change is `mixing.py`'s. One thread uses a bank.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import ConfigurationInvalid, Conflict, Unavailable
from model_organisms.formats import adapter, manifest
from model_organisms.formats.paths import WEIGHTS
from model_organisms.loading.speech import speech
from model_organisms.sampling.filling import fill, new_row, wipe_row
from model_organisms.sampling.sites import Sites

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model_organisms.formats.tensors import TensorTable
    from model_organisms.loading import LoadedBase, Speech
    from model_organisms.records import AdapterFacts
    from model_organisms.sampling.mixing import Mixer
    from model_organisms.sampling.sites import Layout


@dataclass(frozen=True, slots=True, eq=False)
class Organism:
    """The handle of an organism in a bank. Two handles are equal only if they are one."""

    facts: tuple[AdapterFacts, ...]
    """What the bytes say of each adapter, in order of composition."""
    adapter_digests: tuple[str, ...]
    """SHA-256 of each adapter's weights file, in that order."""
    modules_applied: int
    """Layers that an adapter changes, summed over adapters."""
    speech: Speech
    known_answer_checked: bool
    bytes: int
    """Memory it takes while it is resident."""


@dataclass(slots=True)
class _Record:
    """What the bank knows of one organism."""

    facts: tuple[AdapterFacts, ...]
    tables: tuple[TensorTable, ...]
    """Views of the bundle's own bytes: from these it comes back."""
    weights: tuple[bytes | memoryview, ...]
    """Each adapter's file, of which the tables are views."""
    files: dict[str, bytes | memoryview]
    """The whole bundle, training checkpoints too."""
    version_digest: str
    """As whoever added it knew it; empty where nobody did."""
    layout: Layout
    filled: bool = False
    users: int = 0

    @property
    def size(self) -> int:
        return 4 * self.layout.size


class Bank:
    """The organisms of one base model.

    - a resident organism's row is what its bytes say, and nobody writes to it;
    - resident rows never take more than the budget;
    - who is in use (`using`) or in a mixer's composition is not evicted.
    """

    def __init__(self, base: LoadedBase, *, budget: int = 2 << 30) -> None:
        """Begin empty.

        Args:
            base: The base model; it must carry no organism of `loading.attach`.
            budget: Bytes that resident organisms may take together, on the base's device.

        Raises:
            Conflict: The base carries an organism.
            ConfigurationInvalid: The budget is none.
        """
        if budget <= 0:
            raise ConfigurationInvalid(f"A budget of {budget} bytes holds no organism; give more than 0.")
        self.base = base
        self.budget = budget
        self.sites = Sites(base.model)
        self.mixer: Mixer | None = None
        """The mixer that serves this bank; it enters itself."""
        self._known: dict[Organism, _Record] = {}
        self._rows: OrderedDict[Organism, torch.Tensor] = OrderedDict()

    def add(
        self, files: Mapping[str, bytes | memoryview], *, known_answer: Mapping[str, Any] | None = None, version_digest: str = ""
    ) -> Organism:
        """Take an organism in.

        Steps: 1. inspect the bundle as if nobody had, 2. find its modules on the base, 3. copy its factors to the device,
        4. the known-answer test.

        Args:
            files: The bundle, contents by path; training checkpoints in it are passed over. They are kept, not copied, and must
                stay unchanged until the organism is removed: an evicted organism comes back from them.
            known_answer: What the provenance stored; None tests only that the adapters do something.
            version_digest: Digest of the version it is a copy of; see `version_digest`.

        Returns:
            Its handle. On any error nothing of it stays.

        Raises:
            InvalidBundle: The files are not a bundle (see `formats.adapter.inspect`).
            AdapterKeysMismatch: The base has no such modules.
            KnownAnswerFailed: It loads, and does not answer as published.
            ConfigurationInvalid: It does not fit the budget, even alone.
            Unavailable: It does not fit beside those in use.
        """
        chosen = {path: data for path, data in files.items() if not path.startswith("checkpoints/")}
        with ThreadPoolExecutor(1, thread_name_prefix="hashes") as aside:  # hashing leaves Python free, and inspecting is Python
            hashes = {path: aside.submit(hashlib.sha256, data) for path, data in chosen.items() if path.endswith(WEIGHTS)}
            found = adapter.read(chosen, self.base.config)
        facts = tuple(fact for fact, _ in found)
        told = speech(chosen, self.base.tokenizer, vocabulary=self.base.model.get_input_embeddings().num_embeddings)
        paths = [("" if fact.path == "." else f"{fact.path}/") + WEIGHTS for fact in facts]
        record = _Record(
            facts,
            tuple(table for _, table in found),
            tuple(chosen[path] for path in paths),
            dict(files),
            version_digest,
            self.sites.layout(self.sites.ranks(facts)),
        )
        organism = Organism(
            facts=facts,
            adapter_digests=tuple(hashes[path].result().hexdigest() for path in paths),
            modules_applied=sum(len(fact.modules) for fact in facts),
            speech=told,
            known_answer_checked=known_answer is not None,
            bytes=record.size,
        )
        self._known[organism] = record
        try:
            self.weights(organism)
            self._try(organism, known_answer)
        except BaseException:
            self.remove(organism)
            raise
        return organism

    def remove(self, organism: Organism) -> None:
        """Wipe an organism's weights and forget it; its handle must not be used again. Its `files` are its caller's to wipe.

        Raises:
            Conflict: It is in use, or not of this bank.
        """
        if self._record(organism).users:
            raise Conflict("This organism is in use; cancel its requests first.")
        self._leave(organism)
        layout = self._known.pop(organism).layout
        if not any(record.layout is layout for record in self._known.values()):
            self.sites.forget(layout)

    @contextmanager
    def using(self, organism: Organism) -> Iterator[None]:
        """Keep an organism from eviction and removal while the block runs."""
        self.hold(organism)
        try:
            yield
        finally:
            self.release(organism)

    def hold(self, organism: Organism) -> None:
        """Say that one more uses it: it is neither evicted nor removed. Each call needs a `release`."""
        self._record(organism).users += 1

    def release(self, organism: Organism) -> None:
        """Say that one uses it no more."""
        record = self._record(organism)
        if not record.users:
            raise Conflict("Nobody uses this organism; `release` goes with one `hold`.")
        record.users -= 1

    def fits(self, organism: Organism) -> bool:
        """Tell whether an organism fits the budget beside those in use."""
        inside = {one for one, record in self._known.items() if record.users} | {organism}
        return sum(one.bytes for one in inside) <= self.budget

    def __contains__(self, organism: object) -> bool:
        """Tell whether it was added and not removed, resident or not."""
        return organism in self._known

    def __len__(self) -> int:
        """Count the organisms, resident or not."""
        return len(self._known)

    @property
    def resident(self) -> tuple[Organism, ...]:
        """Those whose weights are on the device, who was used longest ago first."""
        return tuple(self._rows)

    @property
    def used(self) -> int:
        """Bytes that the resident ones take."""
        return sum(organism.bytes for organism in self._rows)

    def layout(self, organism: Organism) -> Layout:
        """Say how its row lies.

        Raises:
            Conflict: It is not of this bank.
        """
        return self._record(organism).layout

    def version_digest(self, organism: Organism) -> str:
        """Say which version it is of: as whoever added it knew, else the digest of its files' manifest.

        A copy that is marked for its holder has other bytes than its version, so of such only whoever pulled it knows.

        Raises:
            Conflict: It is not of this bank, or its files were wiped or changed since it was added.
            InvalidBundle: A file among its training checkpoints has no place in a bundle.
        """
        record = self._record(organism)
        if record.version_digest:
            return record.version_digest
        _unchanged(organism, record)
        return manifest.build(record.files).digest

    def weights(self, organism: Organism) -> torch.Tensor:
        """Give an organism's row, and bring it back first if it was evicted.

        Returns:
            float32 on the base's device, shape [layout.size]; only to be read, and only until the bank is used again.

        Raises:
            Conflict: It is not of this bank, or its files were wiped or changed since it was added.
            ConfigurationInvalid: It does not fit the budget, even alone.
            Unavailable: It does not fit beside those in use.
        """
        record = self._record(organism)
        if organism not in self._rows:
            if record.filled:
                _unchanged(organism, record)
            self._make_room(record.size)
            try:
                row = new_row(record.layout, self.base.device)
                fill(row, record.layout, record.facts, record.tables)
            except torch.OutOfMemoryError as error:
                raise Unavailable(
                    "The device has no memory left for this organism; remove others, or try again later."
                ) from error
            self._rows[organism], record.filled = row, True
        self._rows.move_to_end(organism)
        return self._rows[organism]

    def close(self) -> None:
        """Wipe everything."""
        for organism in list(self._rows):
            self._leave(organism)
        self._known.clear()

    def _record(self, organism: Organism) -> _Record:
        if organism not in self._known:
            raise Conflict("This organism is not in the bank: it was removed, or belongs to another; add it again.")
        return self._known[organism]

    def _make_room(self, size: int) -> None:
        """Evict those used longest ago until `size` bytes fit."""
        if size > self.budget:
            raise ConfigurationInvalid(
                f"This organism takes {size:,} bytes and the budget is {self.budget:,}; raise `adapter_bytes`, or publish it "
                "with a lower rank."
            )
        composed = self.mixer.composed if self.mixer else frozenset()
        idle = [organism for organism in self._rows if not self._known[organism].users and organism not in composed]
        free = self.budget - self.used
        if free + sum(organism.bytes for organism in idle) < size:
            raise Unavailable(
                f"This organism takes {size:,} bytes, and those in use leave {free + sum(o.bytes for o in idle):,} of "
                f"{self.budget:,}; wait for requests to end, or raise `adapter_bytes`."
            )
        for organism in idle:
            if free >= size:
                break
            free += organism.bytes
            self._leave(organism)

    def _leave(self, organism: Organism) -> None:
        """Take an organism off the device, here and in the mixer's tables, and leave zeros behind."""
        if self.mixer:
            self.mixer.forget(organism)
        row = self._rows.pop(organism, None)
        if row is not None:
            wipe_row(row)

    def _try(self, organism: Organism, known_answer: Mapping[str, Any] | None) -> None:
        """Ask it for its known answer, by the way on which it will answer."""
        from model_organisms.sampling.mixing import Mixer

        if self.mixer:
            self.mixer.check(organism, known_answer)
            return
        mixer = Mixer(self.base, self)
        try:
            mixer.check(organism, known_answer)
        finally:
            mixer.close()


def _unchanged(organism: Organism, record: _Record) -> None:
    """Refuse files that were wiped or changed since: from zeros it would answer as the base does, and nobody would know."""
    if tuple(hashlib.sha256(data).hexdigest() for data in record.weights) != organism.adapter_digests:
        raise Conflict("The files of this organism were wiped or changed; remove it, and add it again from files that stay.")
