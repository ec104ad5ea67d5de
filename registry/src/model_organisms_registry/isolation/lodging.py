"""A session's place on a cluster, as the registry holds it; and the lookout that notices when one is lost.

It has the manners of a cell on this machine: one call at a time, a lost place said once, and every failure an error of the tree.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import ray
from model_organisms.cells.calls import GRACE_S
from model_organisms.cells.frames import Ask, Direct, Directed, Draw, Numbers, Piece, decode
from model_organisms.cells.starting import CLOSING_S
from model_organisms.errors import CellUnavailable, ModelOrganismsError
from model_organisms.records import Inquiry
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from model_organisms_registry.isolation.keeper import GIVEN, pack_question
from model_organisms_registry.isolation.sealed import parse_error
from model_organisms_registry.isolation.ward import CONTROL, TALK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model_organisms.records import Message, NewDirection, SamplingParameters

    from model_organisms_registry.isolation.openings import Opened
    from model_organisms_registry.isolation.sealed import Line

LOOK_S = 5.0
SILENT_S = 20.0
"""A keeper that is this late with an answer is lost."""


def asked(reference: Any, *, seconds: float) -> Any:  # noqa: ANN401 - what an actor's method returns
    """Wait for the answer of a keeper.

    Raises:
        CellUnavailable: It gave none in time, is gone, or failed.
        ModelOrganismsError: What it raised.
    """
    try:
        return ray.get(reference, timeout=max(0.0, seconds))
    except GetTimeoutError:
        raise CellUnavailable("A node of the cluster did not answer in time; try again.") from None
    except RayTaskError as error:
        if isinstance(error.cause, ModelOrganismsError):
            raise error.cause from None
        msg = f"A node of the cluster failed ({type(error.cause).__name__}); its log says where. Open a new session."
        raise CellUnavailable(msg) from None
    except RayError as error:
        raise CellUnavailable(f"A node of the cluster was lost ({type(error).__name__}); open a new session.") from None


class Lodging:
    """One session's place with a keeper."""

    def __init__(
        self,
        name: str,
        keeper: Any,  # noqa: ANN401 - an actor's handle
        line: Line,
        opened: Opened,
        *,
        version_digest: str,
        died: Callable[[str], None] | None,
        left: Callable[[Lodging], None],
    ) -> None:
        """Take over what a keeper opened; `ClusterPool.open` does."""
        self.name, self.keeper = name, keeper
        self.walls, self.missing, self.alone, self.info = opened.walls, opened.missing, opened.alone, opened.info
        self.jailed = not opened.missing
        self.version_digest = version_digest
        self._line, self._died, self._left = line, died, left
        self._calls = count(1)
        self._turn = threading.Lock()
        self._ending = threading.Lock()
        self._over = False
        self._why = ""

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""
        return not self._over

    def sample(self, messages: Sequence[Message], parameters: SamplingParameters, *, max_seconds: float) -> Iterator[Piece]:
        """Draw text, as `Tenant` says."""
        with self._call(max_seconds) as call:
            question = self._line.ask(call, pack_question(max_seconds, Draw(tuple(messages), parameters)))
            options = {"num_returns": "streaming", "concurrency_group": TALK}
            answers = self.keeper.sample.options(**options).remote(self.name, call, question)
            until = time.monotonic() + max_seconds + GRACE_S + SILENT_S
            done = False
            try:
                for number in count():
                    piece = self._given(Piece, call, number, self._next(answers, until))
                    done = bool(piece.finish_reason)
                    yield piece
                    if done:
                        return
            finally:
                if not done and self.alive:
                    self._tell("leave", call)

    def probe(self, messages: Sequence[Message], *, inquiry: Inquiry | None = None, max_seconds: float = 60.0) -> Numbers:
        """Ask for numbers, as `Tenant` says."""
        numbers: Numbers = self._once(Ask(tuple(messages), inquiry or Inquiry()), Numbers, max_seconds)
        return numbers

    def direct(self, sought: NewDirection, *, max_seconds: float = 60.0) -> Directed:
        """Have a direction kept, as `Tenant` says."""
        made: Directed = self._once(Direct(sought), Directed, max_seconds)
        return made

    def cancel(self) -> None:
        """Stop the call that is running; it ends with a last piece. Harmless if none is."""
        if self.alive:
            self._tell("cancel")

    def close(self, *, wait: bool = True) -> None:
        """Give the place up, and wait until the keeper says that it is gone."""
        if self._end():
            told = self._tell("close")
            if wait:
                with suppress(ModelOrganismsError):
                    asked(told, seconds=2 * CLOSING_S + SILENT_S)

    def kill(self) -> None:
        """Give it up at once."""
        if self._end():
            self._tell("kill")

    def drain(self, seconds: float) -> None:
        """Wait so long for the call that is running, then close."""
        if self._turn.acquire(timeout=max(0.0, seconds)):
            self._turn.release()
        self.close()

    def lost(self, why: str) -> None:
        """Hear that it is lost; that is said on once, and only of a place that nobody gave up."""
        self._why = self._why or why
        if self._end() and self._died:
            self._died(why)

    def lose(self, why: str) -> None:
        """Give it up as lost: its keeper, should it be there, is told to end it."""
        if self.alive:
            with suppress(RayError, RuntimeError):  # a cluster that is gone hears nothing
                self._tell("kill")
            self.lost(why)

    def _once(self, body: Ask | Direct, kind: type[Any], seconds: float) -> Any:  # noqa: ANN401 - of that kind
        with self._call(seconds) as call:
            question = self._line.ask(call, pack_question(seconds, body))
            answer = self.keeper.probe.options(concurrency_group=TALK).remote(self.name, call, question)
            return self._given(kind, call, 0, self._got(answer, seconds + GRACE_S + SILENT_S))

    def _end(self) -> bool:
        with self._ending:
            first, self._over = not self._over, True
        if first:
            self._left(self)
        return first

    @contextmanager
    def _call(self, seconds: float) -> Iterator[int]:
        if not self._turn.acquire(timeout=max(0.0, seconds)):
            raise CellUnavailable("The session is still busy with an earlier call; wait for it, or cancel it.")
        try:
            if not self.alive:
                raise CellUnavailable(f"The session's place is gone{self._why and f' ({self._why})'}; open a new session.")
            yield next(self._calls)
        finally:
            self._turn.release()

    def _tell(self, what: str, *arguments: object) -> Any:  # noqa: ANN401 - a reference
        return getattr(self.keeper, what).options(concurrency_group=CONTROL).remote(self.name, *arguments)

    def _next(self, answers: Any, until: float) -> bytes:  # noqa: ANN401 - Ray's generator of references
        ready, _ = ray.wait([answers], timeout=max(0.0, until - time.monotonic()))
        try:
            return self._got(next(answers) if ready else None, 1.0)
        except StopIteration:
            self.lose("its node ended an answer in the middle")
            raise CellUnavailable("The session's node ended its answer in the middle; open a new session.") from None

    def _got(self, reference: Any, seconds: float) -> bytes:  # noqa: ANN401 - a reference, or None for one that never came
        if reference is None:
            self.lose("its node did not answer in time")
            raise CellUnavailable("The session's node did not answer in time; open a new session.")
        try:
            return bytes(asked(reference, seconds=seconds))
        except CellUnavailable as error:
            self.lose(error.message)
            raise

    def _given(self, kind: type[Any], call: int, number: int, sealed: bytes) -> Any:  # noqa: ANN401 - of that kind
        """Open an answer; one that does not open loses the place, since somebody between here and there changes what is said."""
        try:
            plain = self._line.answered(call, number, sealed)
        except ModelOrganismsError:
            self.lose("an answer was changed on its way")
            raise CellUnavailable("An answer was changed on its way from the cluster; tell the operator.") from None
        if plain[:1] != GIVEN:
            error = parse_error(plain[1:])
            if isinstance(error, CellUnavailable):
                self.lose(error.message)
            raise error
        body = decode(plain[1:]).body
        if not isinstance(body, kind):
            self.lose("it answered with something else")
            raise CellUnavailable("The session's node answered with something else; open a new session.")
        return body


@dataclass(slots=True)
class _House:
    keeper: Any
    lodgings: dict[str, Lodging] = field(default_factory=dict)


class Lookout:
    """Asks each keeper that has sessions of ours who was lost; by that it knows that we live, and which are ours still."""

    def __init__(self) -> None:
        """Begin with none."""
        self._houses: dict[str, _House] = {}
        self._early: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def lodgings(self) -> tuple[Lodging, ...]:
        """Sessions that have a place."""
        with self._lock:
            return tuple(lodging for house in self._houses.values() for lodging in house.lodgings.values())

    def add(self, lodging: Lodging) -> None:
        """Watch over a place from here on."""
        key = lodging.keeper._actor_id.hex()  # noqa: SLF001 - a handle tells its id nowhere else
        with self._lock:
            known = key in self._houses
            self._houses.setdefault(key, _House(lodging.keeper)).lodgings[lodging.name] = lodging
            early = self._early.pop(lodging.name, "")
        if not known:
            threading.Thread(target=self._watch, args=(key,), name="keeper-lookout", daemon=True).start()
        if early:
            lodging.lost(early)

    def drop(self, lodging: Lodging) -> None:
        """Watch over it no more."""
        with self._lock:
            for house in self._houses.values():
                house.lodgings.pop(lodging.name, None)

    def _watch(self, key: str) -> None:
        while True:
            with self._lock:
                house = self._houses[key]
                if not house.lodgings:
                    del self._houses[key]
                    return
                ours = tuple(house.lodgings)
            try:
                news = house.keeper.watch.options(concurrency_group=CONTROL).remote(LOOK_S, ours)
                lost = asked(news, seconds=LOOK_S + SILENT_S)
            except ModelOrganismsError as error:
                with self._lock:
                    gone = list(self._houses.pop(key).lodgings.values())
                for lodging in gone:
                    lodging.lose(error.message)  # the keeper may only have been slow, and has it still
                return
            for name, why in lost.items():
                with self._lock:
                    found = house.lodgings.get(name)
                    if found is None:
                        self._early[name] = why
                if found is not None:
                    found.lost(why)
