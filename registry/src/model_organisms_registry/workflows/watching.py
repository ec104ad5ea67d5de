"""Reading what is said in a session, afterwards or while it is said: for those who oversee, and each look is an entry of its own.

The ledger says what there is and in which order, the sealed contents are what it commits to. So a watcher sees nothing before it
was entered, needs not be where the cell is, and takes nothing from the session's own stream: it cannot make it wait.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from model_organisms.errors import ModelOrganismsError, NotFound, Unavailable
from model_organisms.formats import entry as entries
from model_organisms.records import Message, SessionState, Utterance, UtteranceKind

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.workflows import standing
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from model_organisms.records import Entry, Session

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.workflows.changes import Changes
    from model_organisms_registry.workflows.sandbox import Sandbox

_LOG = logging.getLogger(__name__)
_EVERY_S = 0.5
"""How often is looked for more."""
SLOW_S = 20.0
"""Who takes no more for so long is sent away: each watcher holds a thread."""
_SKEW = timedelta(minutes=1)
_KINDS = {
    Event.SAMPLE_INTENT.type: UtteranceKind.PROMPT,
    Event.PROBE_INTENT.type: UtteranceKind.PROMPT,
    Event.SAMPLE_RELEASE.type: UtteranceKind.TEXT,
    Event.PROBE_RESULT.type: UtteranceKind.NUMBERS,
    Event.SAMPLE_RESULT.type: UtteranceKind.RESULT,
    Event.RERUN.type: UtteranceKind.RERUN,
    Event.RERUN_DIFFERS.type: UtteranceKind.RERUN,
    Event.LOST.type: UtteranceKind.LOST,
    Event.END_SESSION.type: UtteranceKind.END,
}
_WITH_WORDS = frozenset({UtteranceKind.PROMPT, UtteranceKind.TEXT, UtteranceKind.NUMBERS, UtteranceKind.END})
"""A result's content is the windows once more; where there were none, it is read out as one."""


class Watching:
    """Reads sessions out.

    Args:
        changes: Opens transactions; has the ledger.
        gate: Decides who may.
        contents: Where prompts and answers are kept, encrypted.
        sandbox: Finds sessions.
        clock: The time while a stream runs.
    """

    def __init__(
        self, changes: Changes, gate: Gate, contents: Contents, *, sandbox: Sandbox, clock: Callable[[], datetime]
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._sandbox = sandbox
        self._clock = clock

    def watch(self, call: Call, name: str, *, follow: bool, only_new: bool, after: int = 0) -> Iterator[Utterance]:
        """Read a session out, in the order of the ledger.

        1. Permit. 2. The look is entered. 3. What was said so far. 4. Where asked, what is said from now on, until its end, while
        the watcher's account stands.

        Args:
            call: Whose.
            name: The session.
            follow: Go on until it has ended.
            only_new: Leave out what was said before.
            after: Leave out what stands in the ledger up to this entry.

        Yields:
            What was said.

        Raises:
            Unavailable: The watcher does not keep up.
        """
        with self._changes.database.read() as tx:
            session, resource = self._sandbox.found(tx, call, Action.WATCH_SESSION, name)
        permit = self._gate.permit(call, Action.WATCH_SESSION, resource)
        facts = {"follow": "yes" if follow else "no"}
        looked = self._changes.enter(entry(Event.WATCH, call, seq=seq(), subject=name, permit=permit, facts=facts))
        at = after + 1 if after else looked.index if only_new else self._first(session)
        over, start, windows = 0, at, set[str]()
        while True:
            size = self._changes.log.size()
            for index, one in self._entries(at, size):
                if one.type == Event.SAMPLE_RELEASE.type and one.subject.startswith(f"{name}/"):
                    windows.add(one.subject)
                for told in self._told(name, index, one, windowed=partial(self._windowed, one, windows, start)):
                    yield from _keeping_up(told)
            at = size
            # An end of a question may come after the session's own: one more look, once it has ended.
            if not follow or over > 1 or self._clock() >= call.deadline:
                return
            time.sleep(_EVERY_S)
            with self._changes.database.read() as tx:
                standing.caller(tx, call)
                over += rows.session(tx, name).state is not SessionState.OPEN

    def _first(self, session: Session) -> int:
        """Where in the ledger a session can begin, at the earliest: found by halves, as entries are nearly in time's order."""
        low, high = 0, self._changes.log.size()
        while low < high:
            middle = (low + high) // 2
            found = entries.parse(self._changes.log.entry(middle))
            if found.time < session.create_time - _SKEW:
                low = middle + 1
            else:
                high = middle
        return low

    def _entries(self, start: int, end: int) -> Iterator[tuple[int, Entry]]:
        while start < end:
            bodies = self._changes.log.entries(start, end - start)
            yield from enumerate(map(entries.parse, bodies), start)
            start += len(bodies)

    def _windowed(self, result: Entry, windows: set[str], start: int) -> bool:
        """Whether windows of an answer came before its result: among those seen, or before the look began."""
        if result.subject in windows:
            return True
        earlier = self._entries(max(0, result.intent), start)
        return any(one.type == Event.SAMPLE_RELEASE.type and one.subject == result.subject for _, one in earlier)

    def _told(self, name: str, index: int, one: Entry, *, windowed: Callable[[], bool]) -> Iterator[Utterance]:
        """What an entry says of the session, with the content it commits to.

        What a holder reported of a question that was refused meanwhile is in its result alone: nothing was released.
        """
        kind = _KINDS.get(one.type)
        if kind is None or not (one.subject == name or one.subject.startswith(f"{name}/")):
            return
        if kind is UtteranceKind.RESULT and one.facts["bytes"] != "0" and not windowed():
            said = self._utterance(UtteranceKind.TEXT, index, one)
            if said.text:
                yield said
        yield self._utterance(kind, index, one)

    def _utterance(self, kind: UtteranceKind, index: int, one: Entry) -> Utterance:
        text = one.facts.get("outcome") or one.facts.get("state") or one.facts.get("verdict") or ""
        messages: tuple[Message, ...] = ()
        if kind in _WITH_WORDS and one.commit:
            try:
                said = self._read(one.commit)
            except ModelOrganismsError as error:  # its key was destroyed, or is out of reach
                _LOG.info("%s: %s", one.subject, error.message)
                kind, text = UtteranceKind.ERASED, kind.value
            else:
                if kind is UtteranceKind.PROMPT:
                    messages, text = _asked(said)
                else:
                    text = f"{text}: {said}" if kind is UtteranceKind.END else said
        return Utterance(one.subject, kind, text, messages, one.time, index)

    def _read(self, commit: str) -> str:
        with self._changes.database.read() as tx:
            found = rows.content(tx, commit)
        if found is None:
            raise NotFound("The content behind this commitment is not here; run `mo-registry fsck`.")
        return self._contents.read(found).decode()


def _asked(said: str) -> tuple[tuple[Message, ...], str]:
    """A kept question: the conversation that it is about, and as text whatever else was asked."""
    asked = json.loads(said)
    turns, rest = (asked.pop("messages", []), asked) if isinstance(asked, dict) else (asked, None)
    return tuple(Message(**turn) for turn in turns), json.dumps(rest, sort_keys=True) if rest else ""


def _keeping_up(told: Utterance) -> Iterator[Utterance]:
    """Hand one on, and send away who did not take it for too long."""
    handed = time.monotonic()
    yield told
    if time.monotonic() - handed > SLOW_S:
        raise Unavailable("You do not keep up with what is said; watch again, or read the transcript when it has ended.")
