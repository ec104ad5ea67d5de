"""Runs programs of our choosing in the very jail that cells run in, built by the launcher's own function."""

from __future__ import annotations

import json
import textwrap
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_organisms.cells.cell import Cell
from model_organisms.cells.launcher import Jail, Plan, plan
from model_organisms.cells.starting import EmptyCell
from model_organisms.cells.warden import Warden
from model_organisms.records import Role, User, UserState
from model_organisms_registry.domain.permits import Action, Call, Permit

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_organisms.cells.tenant import Tenant

PRELUDE = """
import errno, json, os, sys
def report(value):
    data = json.dumps(value).encode()
    while data:
        data = data[os.write(spec.socket, data):]
def attempt(call, *args, **kwargs):
    try:
        result = call(*args, **kwargs)
    except BaseException as error:
        return type(error).__name__ + ":" + errno.errorcode.get(getattr(error, "errno", None), "")
    return "DONE " + repr(result)[:100]
"""


def without(planned: Plan, *options: str) -> Plan:
    """Take options, with their values, out of bubblewrap's command line: a jail with a wall missing."""
    kept, wrapper, skip = [], planned.wrapper, 0
    values = {"--remount-ro": 1, "--seccomp": 1, "--proc": 1, "--chdir": 1}
    for word in wrapper:
        if skip:
            skip -= 1
        elif word in options:
            skip = values.get(word, 0)
        else:
            kept.append(word)
    assert kept != list(wrapper)
    return replace(planned, wrapper=tuple(kept))


@contextmanager
def jailed(
    code: str, *, model: Path | None = None, change: Callable[[Plan], Plan] | None = None, jail: Jail | None = None
) -> Iterator[EmptyCell]:
    """Start a program in the jail; it has `spec`, `report` and `attempt`."""
    program = f"exec({PRELUDE + textwrap.dedent(code)!r})"
    planned = plan(jail or Jail(), model, code=program)
    warden = Warden()
    try:
        cell = EmptyCell(warden, change(planned) if change else planned)
        try:
            yield cell
        finally:
            cell.discard()
    finally:
        warden.close()


def said(cell: EmptyCell, *, within_s: float = 20.0) -> Any:
    """Read what the program reported, until it hangs up or has said a whole JSON value."""
    connected: socket.socket = cell.channel._socket
    connected.settimeout(within_s)
    data = b""
    while chunk := connected.recv(1 << 16):
        data += chunk
        try:
            return json.loads(data)
        except ValueError:
            continue
    cell.process.wait(within_s)
    msg = f"the program said nothing: {cell.process.diagnosis()}\n{bytes(cell.process._tail).decode(errors='replace')}"
    raise AssertionError(msg)


def in_jail(code: str, **options: Any) -> Any:
    """Run a program in the jail and return what it reported."""
    with jailed(code, **options) as cell:
        return said(cell)


def permit(action: str = Action.OPEN_SESSION, resource: str = "organisms/tiny/versions/1") -> Permit:
    """Make a permit as the gate would."""
    now = datetime.now(UTC)
    user = User("users/ada", "Ada", "organisations/lab", frozenset({Role.RESEARCHER}), UserState.ACTIVE, now)
    call = Call(user, "0" * 16, now, now + timedelta(hours=1), "/test")
    return Permit(call, action, resource, "0" * 64, ("test",))


def eventually(check: Callable[[], object], *, within_s: float = 10.0) -> bool:
    """Wait until something holds, looking ever less often: what is waited for may need the processor that a look takes."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < within_s:
        if check():
            return True
        time.sleep(min(0.25, 0.01 + waited / 10))
    return False


TALKER = """
import select, socket, time
from model_organisms.records import SamplingParameters, TokenScore
from model_organisms.cells import walls
from model_organisms.cells.channel import Channel
from model_organisms.cells.frames import *
channel = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, spec.socket), takes_descriptor=True)
INFO = CellInfo("b" * 64, "d" * 64, "c" * 64, ("a" * 64,), 2, "talker")
def say(body, call=0):
    channel.send(Frame(body, call), within_s=None)
def hear(wait=True):
    while wait or channel.waiting():
        frame = channel.receive()
        if isinstance(frame.body, Ping):
            say(Pong(), frame.call)
        elif isinstance(frame.body, Load):
            os.close(channel.take_descriptor())
            say(INFO, frame.call)
        elif isinstance(frame.body, Unload):
            say(Unloaded(), frame.call)
        else:
            return frame
say(Hello(*walls.attack(spec)))
say(Ready("talker"))
"""
"""The beginning of a cell that speaks the real protocol and has no model; `hear` answers what any cell must. Where it does not
wait, it gives None if nothing else is there."""


@contextmanager
def crowded(
    code: str, *, tenants: int, most: int = 4, spare: int = 0, silence_s: float = 20.0, jail: Jail | None = None
) -> Iterator[tuple[list[Tenant], list[list[str]]]]:
    """Hold a cell whose program is `code`, with some sessions in it; and for each the list of its deaths."""
    deaths: list[list[str]] = [[] for _ in range(tenants)]
    with jailed(TALKER + textwrap.dedent(code), jail=jail) as empty:
        until = time.monotonic() + 20
        cell = Cell(empty, until=until, most=most, spare=spare, silence_s=silence_s)
        held = []
        for told in deaths:
            assert cell.reserve()
            bundle = memoryview(b"bundle")
            held.append(cell.load(bundle, version_digest="d" * 64, known_answer=None, until=until, died=told.append))
        yield held, deaths
        cell.close()
        assert eventually(lambda: not cell.process.alive)


@contextmanager
def talking(code: str, **options: Any) -> Iterator[tuple[Tenant, list[str]]]:
    """Hold a cell whose program is `code`, alone in it; and the list of its deaths."""
    with crowded(code, tenants=1, most=1, **options) as (held, deaths):
        yield held[0], deaths[0]
