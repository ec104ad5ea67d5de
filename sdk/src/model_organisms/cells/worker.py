"""What runs in a cell: attacks its walls, loads the base model, then serves organisms until the registry hangs up.

It starts confined (`confine.py`). Only this module of the room touches the model libraries, and only after the walls were
attacked. It keeps no state but the organisms it was given, writes nothing, and decides nothing: budgets and permits are others'.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import traceback
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model_organisms.cells import walls

if TYPE_CHECKING:
    import mmap
    from collections.abc import Generator, Iterator

    from model_organisms.cells.confine import Spec
    from model_organisms.cells.desk import Desk
    from model_organisms.cells.frames import Ask, CellInfo, Direct, Directed, Draw, Frame, Load, Numbers
    from model_organisms.sampling import Engine, Organism
    from model_organisms.sampling import Piece as Said


def main(spec: Spec) -> None:
    """Be a cell; the launcher's program calls this."""
    standing, missing = walls.attack(spec)
    # Third-party code begins here: protobuf.
    from model_organisms.cells.channel import Channel
    from model_organisms.cells.desk import Desk
    from model_organisms.cells.frames import Hello
    from model_organisms.errors import CellUnavailable

    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, spec.socket)
    desk = Desk(Channel(connected, takes_descriptor=True))
    status = 0
    try:
        desk.say(Hello(standing, missing))
        engine = None
        with _told(desk, 0):
            engine = _ready(desk, spec)
        if engine is not None:
            Host(desk, engine).serve()
    except CellUnavailable:
        pass  # the registry hung up: that is how a cell ends
    except Exception:  # noqa: BLE001 - whatever it was, this process ends, and only the exception's name leaves it
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # no destructors: they take seconds, and nothing is to be saved


def _ready(desk: Desk, spec: Spec) -> Engine:
    from model_organisms.cells.lean import keep_lean

    keep_lean()
    from model_organisms import loading
    from model_organisms.cells.frames import Ready
    from model_organisms.sampling import Engine

    base = loading.load_base(spec.model, device=spec.device, dtype=spec.dtype or "auto", progress=False)
    engine = Engine(base, rows=spec.rows, adapter_bytes=spec.adapters, cache_bytes=spec.cache)
    desk.say(Ready(engine.build()))
    return engine


@dataclass(slots=True)
class _Place:
    """One organism that was loaded."""

    organism: Organism
    memory: mmap.mmap
    tickets: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Making:
    """Numbers or a direction being made, a chunk of a prompt at a time, so that nobody waits longer than for one."""

    call: int
    place: _Place
    steps: Generator[bool, None, Numbers | Directed]
    """Says at each pause whether it is amid a prompt, and holds what it has read of it."""


class Host:
    """Serves many sessions on one engine: frames between two steps, one step for everybody, pieces to whom they belong."""

    def __init__(self, desk: Desk, engine: Engine) -> None:
        """Begin with no organism."""
        self._desk, self._engine = desk, engine
        self._places: dict[int, _Place] = {}
        self._calls: dict[int, tuple[int, _Place]] = {}
        """Ticket of the engine to call number and place."""
        self._making: deque[_Making] = deque()

    def serve(self) -> None:
        """Go on until the registry hangs up."""
        from model_organisms.cells.frames import Unload, Unloaded

        while True:
            stepping = (self._engine.busy or self._making) and not self._desk.full
            for frame in self._desk.heard(wait=not stepping):
                if isinstance(frame.body, Unload):  # it succeeds, or this process ends
                    self._unload(frame.body.slot)
                    self._desk.say(Unloaded(), frame.call)
                else:
                    with _told(self._desk, frame.call):
                        self._take(frame)
            if self._engine.busy and not self._desk.full:
                self._tell(self._engine.step())
            if self._making and not self._desk.full:
                self._make()

    def _take(self, frame: Frame) -> None:
        from model_organisms.cells.frames import Ask, Cancel, Direct, Draw, Load, Ping, Pong

        body, call = frame.body, frame.call
        if isinstance(body, Ping):
            self._desk.say(Pong(), call)
        elif isinstance(body, Load):
            self._desk.say(self._load(body), call)
        elif isinstance(body, Draw):
            self._draw(body, call)
        elif isinstance(body, Ask | Direct):
            place = self._place(body)
            steps = self._asking(place, body) if isinstance(body, Ask) else self._directing(place, body)
            self._making.append(_Making(call, place, steps))
        elif isinstance(body, Cancel):
            for ticket in [ticket for ticket, (number, _) in self._calls.items() if number == call]:
                self._engine.cancel(ticket)
            self._tell(self._engine.told())  # now: the next step may be a long one
            self._give_up([making for making in self._making if making.call == call])

    def _place(self, body: Draw | Ask | Direct) -> _Place:
        from model_organisms.errors import InvalidArgument

        if (place := self._places.get(body.slot)) is None:
            raise InvalidArgument("There is no such organism in this cell.")
        return place

    def _load(self, load: Load) -> CellInfo:
        """Take a bundle out of its sealed memory; its descriptor does not stay open."""
        from model_organisms.cells.frames import CellInfo
        from model_organisms.cells.opening import open_bundle
        from model_organisms.errors import InvalidArgument

        descriptor = self._desk.descriptor()
        if descriptor < 0 or load.slot in self._places:
            raise InvalidArgument("The bundle did not come with its frame, or for a place that is taken.")
        files, memory = open_bundle(descriptor, load)
        answer = json.loads(load.known_answer) if load.known_answer else None
        try:
            organism = self._engine.add(files, known_answer=answer)
        except BaseException as error:
            del files
            self._forget(error)
            raise
        self._places[load.slot] = _Place(organism, memory)
        return CellInfo(
            base_digest=self._engine.base.digest,
            tokenizer_digest=organism.speech.tokenizer_digest,
            template_digest=organism.speech.template_digest,
            adapter_digests=organism.adapter_digests,
            modules_applied=organism.modules_applied,
            engine=self._engine.build(),
            known_answer_checked=organism.known_answer_checked,
            hidden=self._engine.directions.size,
        )

    @staticmethod
    def _forget(error: BaseException) -> None:
        """Take away what a bundle that did not go in left: its values stand in the frames that the error came through."""
        from model_organisms.sampling.scrubbing import scrub

        seen: BaseException | None = error
        while seen is not None:
            traceback.clear_frames(seen.__traceback__)
            seen = seen.__cause__ or seen.__context__
        gc.collect()
        scrub()

    def _unload(self, slot: int) -> None:
        """End an organism's calls, wipe it, and unmap its bundle; what still holds on to the bundle ends this process."""
        from model_organisms.cells.frames import CANCELLED, Piece
        from model_organisms.sampling.scrubbing import scrub

        if (place := self._places.pop(slot, None)) is None:
            return
        for ticket in place.tickets:
            call, _ = self._calls.pop(ticket)
            self._desk.say(Piece("", 0, CANCELLED), call)
        self._give_up([making for making in self._making if making.place is place])
        memory = place.memory
        self._engine.remove(place.organism)
        del place
        gc.collect()
        memory.close()
        scrub()

    def _draw(self, draw: Draw, call: int) -> None:
        place = self._place(draw)
        ticket = self._engine.submit(place.organism, draw.messages, draw.parameters)
        self._calls[ticket] = call, place
        place.tickets.add(ticket)

    def _asking(self, place: _Place, asked: Ask) -> Generator[bool, None, Numbers]:
        """Measure; who keeps asking keeps nobody from the next step."""
        from model_organisms.cells.frames import Numbers

        yield False
        made = yield from self._engine.measuring(place.organism, asked.messages, asked.inquiry)
        return Numbers(made.positions, made.kl, made.readings)

    def _directing(self, place: _Place, asked: Direct) -> Generator[bool, None, Directed]:
        """Make a direction, and keep it under its organism, so that no other session's requests find it."""
        from model_organisms.cells.frames import Directed
        from model_organisms.errors import InvalidArgument
        from model_organisms.sampling.probing import cosines
        from model_organisms.sampling.steering import digest, mean_difference, unpacked

        sought, kept, organism = asked.sought, self._engine.directions, place.organism
        others = [kept.get(name, owner=organism) for name in sought.compared]
        if sought.vector:
            vector = unpacked(sought.vector)
        elif sought.positive and sought.negative:
            sides: tuple[list[Any], list[Any]] = [], []
            for side, prompts in zip(sides, (sought.positive, sought.negative), strict=True):
                for prompt in prompts:
                    side.append((yield from self._engine.last_state(organism, prompt, sought.layer)))
                    yield False
            vector = mean_difference(*sides)
        else:
            raise InvalidArgument("A contrast has prompts on both sides; give some.", field="contrast")
        norm = kept.keep(sought.name, vector, owner=organism)
        made = kept.get(sought.name, owner=organism)
        return Directed(norm, cosines(made, others), digest(made))

    def _make(self) -> None:
        """Read a chunk of a prompt for whoever's turn it is. A prompt is read to its end first, so that one at a time is held."""
        making = self._making.popleft()
        with _told(self._desk, making.call):
            try:
                amid = next(making.steps)
            except StopIteration as done:
                self._desk.say(done.value, making.call)
            else:
                (self._making.appendleft if amid else self._making.append)(making)

    def _give_up(self, makings: list[_Making]) -> None:
        """Leave numbers and directions unmade, and say so: each call has a last frame."""
        from model_organisms.cells.frames import Failed
        from model_organisms.errors import Unavailable

        for making in makings:
            self._making.remove(making)
            making.steps.close()
            told = "What was asked for was not made in time; ask again, with fewer prompts at once, or shorter ones."
            self._desk.say(Failed(Unavailable.reason, told), making.call)

    def _tell(self, pieces: list[tuple[int, Said]]) -> None:
        from model_organisms.cells.frames import Piece

        for ticket, piece in pieces:
            if ticket not in self._calls:
                continue  # its organism was unloaded
            call, place = self._calls[ticket]
            said = False
            with _told(self._desk, call):
                if piece.error is not None:
                    raise piece.error
                self._desk.say(Piece(piece.text, piece.tokens, piece.finish_reason or ""), call)
                said = True
            if piece.finish_reason or not said:  # a call that has heard of a failure hears no more
                self._engine.cancel(ticket)
                del self._calls[ticket]
                place.tickets.discard(ticket)


@contextmanager
def _told(desk: Desk, call: int) -> Iterator[None]:
    """Tell the registry what went wrong; the cell then waits for what comes next."""
    from model_organisms.cells.frames import Failed
    from model_organisms.errors import CellUnavailable, ModelOrganismsError

    try:
        yield
    except CellUnavailable:
        raise
    except ModelOrganismsError as error:
        desk.say(Failed(error.reason, error.message), call)
    except Exception as error:  # noqa: BLE001 - the registry is told its name, which is all that may leave
        traceback.print_exc()
        desk.say(Failed(type(error).__name__, ""), call)
