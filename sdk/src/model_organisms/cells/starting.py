"""A cell before it has met any bundle: a started process that attacks its walls, loads its base model, and is nobody's."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from model_organisms.cells import users
from model_organisms.cells.calls import failure
from model_organisms.cells.channel import Channel
from model_organisms.cells.frames import Failed, Hello, Ready
from model_organisms.cells.seal import sealed_memory
from model_organisms.errors import CellUnavailable, DeadlineExceeded, InvalidArgument, LoadingFailed

if TYPE_CHECKING:
    from model_organisms.cells.launcher import Plan
    from model_organisms.cells.warden import Warden

CLOSING_S = 2.0
"""A cell whose socket was closed has so long to end by itself."""
B = TypeVar("B", Hello, Ready)


class EmptyCell:
    """A started process without a bundle: jailed, perhaps with its base model in memory."""

    def __init__(self, warden: Warden, plan: Plan) -> None:
        """Start it; it says hello later."""
        self.user, lock = users.take() if plan.spec.user else (0, -1)
        plan = replace(plan, spec=replace(plan.spec, user=self.user))
        self.jailed = plan.spec.jailed
        self.memory = plan.spec.memory if self.jailed else 0
        """Bytes of its own memory that it may have; 0 where nothing limits them."""
        filters = plan.filters
        ours, theirs = socket.socketpair()
        opened: list[int] = []
        try:
            opened.extend(sealed_memory(program) for program in ((filters.outer, filters.inner) if filters else ()))
            outer, inner = opened or (-1, -1)
            command = plan.command(theirs.fileno(), outer=outer, inner=inner)
            passed = [theirs.fileno(), *opened]
            self.process = warden.start(command, environment=dict(plan.environment), descriptors=passed)
            self.process.on_end(partial(users.give_back, lock))
        except BaseException:
            ours.close()
            users.give_back(lock)
            raise
        finally:
            theirs.close()
            for descriptor in opened:
                os.close(descriptor)
        self.channel = Channel(ours)
        self._hello: Hello | None = None
        self._ready: Ready | None = None

    def greet(self, until: float) -> Hello:
        """Wait for what the cell found when it attacked its walls.

        Args:
            until: `time.monotonic()` at which to give up.

        Raises:
            CellUnavailable: It died, said something else, or nothing in time.
        """
        if self._hello is None:
            self._hello = self._expect(Hello, until)
        return self._hello

    def ready(self, until: float) -> Ready:
        """Wait for the base model to be in its memory.

        Args:
            until: `time.monotonic()` at which to give up.

        Raises:
            LoadingFailed: The base model cannot be loaded.
            CellUnavailable: It died, said something else, or nothing in time.
        """
        self.greet(until)
        if self._ready is None:
            self._ready = self._expect(Ready, until)
        return self._ready

    def discard(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(CLOSING_S)
        self.channel.close()

    def _expect(self, kind: type[B], until: float) -> B:
        try:
            body = self.channel.receive(until).body
        except DeadlineExceeded as error:
            raise CellUnavailable("The cell took too long to start; try again, or raise [cells] start_timeout_s.") from error
        except CellUnavailable as error:
            self.process.wait(CLOSING_S)
            msg = f"The cell ended while it started ({self.process.diagnosis()}); try again."
            raise CellUnavailable(msg) from error
        if isinstance(body, Failed):
            raise failure(body, LoadingFailed, InvalidArgument)
        if not isinstance(body, kind):
            raise CellUnavailable("The cell said something out of turn while it started; try again.")
        return body
