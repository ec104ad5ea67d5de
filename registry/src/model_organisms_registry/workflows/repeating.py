"""Says one turn again, in a cell of its own, and tells whether it came out the same. Nobody hears it.

1. ledger and sealed contents are held against each other: prompt, answer, parameters, receipt
2. the gate permits it to the registry itself, and the version is opened as for a session
3. the prompt is answered with the same seed, and compared as it comes
"""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from model_organisms.errors import (
    BaseModelMissing,
    CellUnavailable,
    Denied,
    JailMissing,
    ModelOrganismsError,
    Unavailable,
    VerificationFailed,
)
from model_organisms.formats import entry as entries
from model_organisms.formats import sampled
from model_organisms.records import Message, User, UserState

from model_organisms_registry.domain.identity import ITSELF
from model_organisms_registry.domain.permits import Action, Call
from model_organisms_registry.domain.rerunning import Answer, Comparison, Verdict, compare
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import sandbox as session_rows
from model_organisms_registry.workflows import finding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from model_organisms.records import Entry

    from model_organisms_registry.domain.organisms import Subject
    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.isolation.placement import Tenant
    from model_organisms_registry.storage.catalog.reruns import Due
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.workflows.changes import Changes
    from model_organisms_registry.workflows.loading import Loading

_LONGEST_S = 600.0
"""Longest time for one answer."""
_ROOM_S = 120.0
"""Longest wait of a session for the place of a turn; no cell takes longer to start."""
_ERASED = "ERASED"
_LATER = (Unavailable, JailMissing, BaseModelMissing)
"""What says nothing of the turn: it is tried again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a turn."""

    verdict: Verdict
    facts: dict[str, str] = field(default_factory=dict)
    permit: Permit | None = None


class Place:
    """The one cell that turns are said again in; safe to share between threads."""

    def __init__(self) -> None:
        """Begin without it."""
        self._lock = threading.Lock()
        self._empty = threading.Event()
        self._empty.set()
        self._wanted = False
        self._cell: Tenant | None = None

    def give_up(self) -> bool:
        """End what is in it, because somebody needs the cell, and wait until it is gone; whether there was anything."""
        with self._lock:
            if self._empty.is_set():
                return False
            self._wanted = True
            cell = self._cell
        if cell is not None:
            cell.kill()
        self._empty.wait(_ROOM_S)
        return True

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have it until the block ends; then its cell is gone."""
        with self._lock:
            self._empty.clear()
            self._wanted = False
        try:
            yield
        finally:
            with self._lock:
                cell, self._cell = self._cell, None
            if cell is not None:
                cell.kill()
            self._empty.set()

    def hold(self, cell: Tenant) -> None:
        """Put a cell into it; where it was given up meanwhile, that ends it."""
        with self._lock:
            self._cell, wanted = cell, self._wanted
        if wanted:
            cell.kill()


class Repeating:
    """Says turns again.

    Args:
        changes: Has ledger and database.
        gate: Permits it.
        contents: Where prompts and answers are kept, encrypted.
        cells: Gives versions to cells.
    """

    def __init__(self, changes: Changes, gate: Gate, contents: Contents, *, cells: Loading) -> None:
        """Keep them; sessions may take the cell away from here on."""
        self._changes, self._gate, self._contents, self._cells = changes, gate, contents, cells
        self.place = Place()
        cells.make_room = self.place.give_up

    @property
    def ready(self) -> bool:
        """Whether ledger and walls stand, so that a question to the gate is no refusal that only repeats itself."""
        stands = self._gate.conditions
        return stands.ledger and stands.jail

    def repeat(self, due: Due, result: Entry, now: datetime) -> Outcome:
        """Say a turn again.

        Args:
            due: Which.
            result: Entry of its result.
            now: The time.

        Returns:
            Whether it came out the same; or that it may not be said again, and why.

        Raises:
            Unavailable: There is no cell for it now, or it lost its cell; or who keeps keys or contents cannot be reached.
            JailMissing: A wall of the sandbox is missing.
            BaseModelMissing: So is its base model, where cells are.
        """
        try:
            first = self._kept(due, result)
            if first is None:
                return Outcome(Verdict.SKIPPED, {"reason": _ERASED})
            with self._changes.database.read() as tx:
                subject = finding.subject(tx, due.receipt.version)
            permit = self._permit(subject, now)
        except _LATER:
            raise
        except Denied as error:
            return Outcome(Verdict.SKIPPED, {"reason": error.reason})
        except ModelOrganismsError as error:  # what is kept is not what the ledger says
            return Outcome(Verdict.DIFFERENT, {"reason": error.reason})
        try:
            return self._compared(due, first, subject, permit)
        except _LATER:
            raise
        except Denied as error:
            return Outcome(Verdict.SKIPPED, {"reason": error.reason}, permit)
        except ModelOrganismsError as error:  # what answered then is not what is here now
            return Outcome(Verdict.DIFFERENT, {"reason": error.reason}, permit)

    def _kept(self, due: Due, result: Entry) -> tuple[tuple[Message, ...], Answer] | None:
        """The prompt and the answer, held against the ledger; None where they were erased.

        Raises:
            VerificationFailed: They are not what the ledger commits to.
        """
        intent = entries.parse(self._changes.log.entry(result.intent))
        found = []
        for commit in (intent.commit, result.commit):
            with self._changes.database.read() as tx:
                content = session_rows.content(tx, commit)
            if content is None:
                raise VerificationFailed("A text that the ledger commits to is not kept; run `mo-registry reconcile`.")
            if self._contents.erased(content):
                return None
            found.append(self._contents.read(content))
        said, text = json.loads(found[0]), found[1].decode()
        facts, receipt = result.facts, due.receipt
        outputs = {sha256(found[1]).hexdigest(), facts["output"], receipt.output_sha256}
        stated = sampled.receipt_digest(receipt), str(receipt.tokens), str(receipt.parameters.seed)
        if len(outputs) > 1 or stated != (facts["receipt"], facts["tokens"], intent.facts["seed"]):
            raise VerificationFailed("What is kept of a turn is not what its entry says; run `mo-registry reconcile`.")
        return tuple(Message(**turn) for turn in said), Answer(text, receipt.tokens, facts["outcome"])

    def _permit(self, subject: Subject, now: datetime) -> Permit:
        itself = User(ITSELF, "The registry", "organisations/registry", frozenset(), UserState.ACTIVE, create_time=now)
        resource = replace(entities.version(subject.version, subject.organism), view=None)  # nothing is hidden from it
        return self._gate.permit(Call(itself, "", now, now, "rerun"), Action.RERUN, resource)

    def _compared(self, due: Due, first: tuple[tuple[Message, ...], Answer], subject: Subject, permit: Permit) -> Outcome:
        messages, answer = first
        with self.place.taken():
            cell = self._cells.cell(permit, subject)
            self.place.hold(cell)
            then, info = due.receipt, cell.info
            # At its length an answer gives what it had held back, as one that is cut off does: the same text of so many tokens.
            asked = replace(then.parameters, max_tokens=max(1, answer.tokens)) if answer.cut else then.parameters
            pieces = cell.sample(messages, asked, max_seconds=_LONGEST_S)
            with closing(pieces):  # type: ignore[type-var] # it is a generator
                found = compare(answer, ((piece.text, piece.tokens, piece.finish_reason) for piece in pieces))
        if found.position >= 0 and found.again.ended in {"cancelled", "deadline"}:
            raise CellUnavailable("The cell was too slow, or was taken away; the turn is said again later.")
        now = replace(
            then,
            base_digest=info.base_digest,
            tokenizer_digest=info.tokenizer_digest,
            template_digest=info.template_digest,
            adapter_digests=info.adapter_digests,
            modules_applied=info.modules_applied,
        )
        return Outcome(_verdict(found, same_parts=now == then), _facts(found, then.engine, info.engine), permit)


def _verdict(found: Comparison, *, same_parts: bool) -> Verdict:
    return Verdict.SAME if same_parts and found.position < 0 else Verdict.DIFFERENT


def _facts(found: Comparison, then: str, now: str) -> dict[str, str]:
    facts = {"output": sha256(found.again.text.encode()).hexdigest(), "engine": now}
    if found.position >= 0:
        facts["position"] = str(found.position)
    return facts | ({"engine_then": then} if then != now else {})
