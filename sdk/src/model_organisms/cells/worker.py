"""What runs in a cell: attacks its walls, loads the base model, takes one bundle, then answers until the registry hangs up.

It starts confined (`confine.py`). Only this module of the registry touches the model libraries, and only after the walls were
attacked. It keeps no state but the loaded organism, writes nothing, and decides nothing: budgets and permits are the registry's.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from model_organisms.cells import walls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms.cells.channel import Channel
    from model_organisms.cells.confine import Spec
    from model_organisms.cells.frames import Ask, Draw, Numbers, Piece
    from model_organisms.loading import LoadedBase
    from model_organisms.sampling import Engine, Organism


def main(spec: Spec) -> None:
    """Be a cell; the launcher's program calls this."""
    standing, missing = walls.attack(spec)
    # Third-party code begins here: protobuf.
    from model_organisms.cells.channel import Channel
    from model_organisms.cells.frames import Frame, Hello
    from model_organisms.errors import CellUnavailable

    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, spec.socket)
    channel = Channel(connected, takes_descriptor=True)
    status = 0
    try:
        channel.send(Frame(Hello(standing, missing)), within_s=None)
        _serve(channel, spec)
    except CellUnavailable:
        pass  # the registry hung up: that is how a cell ends
    except Exception:  # noqa: BLE001 - whatever it was, this process ends, and only the exception's name leaves it
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # no destructors: they take seconds, and nothing is to be saved


def _serve(channel: Channel, spec: Spec) -> None:
    from model_organisms.cells.frames import Ask, Draw, Frame, Ready

    loaded = None
    with _told(channel, 0):
        from model_organisms import loading
        from model_organisms.sampling import engine_build

        base = loading.load_base(spec.model, device=spec.device, dtype=spec.dtype or "auto", progress=False)
        channel.send(Frame(Ready(engine_build())), within_s=None)
        loaded = _load(channel, base)
    while loaded is not None:
        frame = channel.receive()
        with _told(channel, frame.call):
            if isinstance(frame.body, Draw):
                for body in _draw(*loaded, frame.body, _Stop(channel, frame.call)):
                    channel.send(Frame(body, frame.call), within_s=None)
            elif isinstance(frame.body, Ask):
                channel.send(Frame(_numbers(*loaded, frame.body), frame.call), within_s=None)


def _load(channel: Channel, base: LoadedBase) -> tuple[Engine, Organism]:
    """Take the bundle out of its sealed memory; its tensors stay there, its descriptor does not stay open."""
    from model_organisms.cells.frames import CellInfo, Frame, Load
    from model_organisms.cells.seal import map_sealed
    from model_organisms.errors import CellUnavailable, DigestMismatch
    from model_organisms.formats import manifest
    from model_organisms.sampling import Engine

    load = channel.receive().body
    descriptor = channel.take_descriptor()
    if not isinstance(load, Load) or descriptor < 0:
        raise CellUnavailable("The registry did not send a bundle.")
    mapped = map_sealed(descriptor)
    os.close(descriptor)
    listed, files = manifest.unpack(memoryview(mapped))
    if listed.digest != load.version_digest:
        raise DigestMismatch("The bundle is not the version that was asked for; its stored bytes are damaged.")
    answer = json.loads(load.known_answer) if load.known_answer else None
    engine = Engine(base)
    organism = engine.add(files, known_answer=answer)
    info = CellInfo(
        base_digest=base.digest,
        tokenizer_digest=organism.speech.tokenizer_digest,
        template_digest=organism.speech.template_digest,
        adapter_digests=organism.adapter_digests,
        modules_applied=organism.modules_applied,
        engine=engine.build(),
        known_answer_checked=organism.known_answer_checked,
    )
    channel.send(Frame(info), within_s=None)
    return engine, organism


class _Stop:
    """Tells the engine between two tokens whether the registry wants it to go on."""

    def __init__(self, channel: Channel, call: int) -> None:
        self._channel, self._call = channel, call
        self.asked = False

    def __call__(self) -> bool:
        from model_organisms.cells.frames import Cancel

        while not self.asked and self._channel.waiting():
            frame = self._channel.receive()
            self.asked = isinstance(frame.body, Cancel) and frame.call == self._call
        return self.asked


def _draw(engine: Engine, organism: Organism, asked: Draw, stop: _Stop) -> Iterator[Piece]:
    from model_organisms.cells.frames import CANCELLED, Piece

    reason = ""
    for piece in engine.generate(organism, asked.messages, asked.parameters, cancelled=stop):
        reason = piece.finish_reason or ""
        yield Piece(piece.text, piece.tokens, CANCELLED if reason and stop.asked else reason)
    if not reason:
        yield Piece("", 0, CANCELLED)


def _numbers(engine: Engine, organism: Organism, asked: Ask) -> Numbers:
    from model_organisms.cells.frames import Numbers

    scores = engine.probe(organism, asked.messages, positions=asked.positions)
    return Numbers(scores.positions, scores.kl_to_base)


@contextmanager
def _told(channel: Channel, call: int) -> Iterator[None]:
    """Tell the registry what went wrong; the cell then waits for what comes next."""
    from model_organisms.cells.frames import Failed, Frame
    from model_organisms.errors import CellUnavailable, ModelOrganismsError

    try:
        yield
    except CellUnavailable:
        raise
    except ModelOrganismsError as error:
        channel.send(Frame(Failed(error.reason, error.message), call), within_s=None)
    except Exception as error:  # noqa: BLE001 - the registry is told its name, which is all that may leave
        traceback.print_exc()
        channel.send(Frame(Failed(type(error).__name__, ""), call), within_s=None)
