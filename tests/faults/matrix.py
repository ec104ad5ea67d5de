"""The fault matrix: each system call of each story fails in turn, in each way; then a restart, and everything is looked for.

A case is a fork: the story's process opens its parts, waits until strace is attached, and does its work, telling its parent over
a socket what it has acknowledged (`send` is not among the calls that fail). Another fork restarts and looks.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import time
import traceback
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from model_organisms.errors import ModelOrganismsError

from tests.faults import strace
from tests.faults.place import BEFORE, Place, Told, examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KINDS = {
    "EIO": "error=EIO:when={at}",
    "ENOSPC": "error=ENOSPC:when={at}",
    "ENOSPC for good": "error=ENOSPC:when={at}+",
    "EINTR": "error=EINTR:when={at}",
    "SIGKILL": "signal=SIGKILL:when={at}",
}
STORIES = ("recover", "append", "publish", "sample")
LONGEST_S = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One fault."""

    story: str
    call: str
    at: int
    kind: str

    def __str__(self) -> str:
        """Name it as the table does."""
        return f"{self.story}, {self.call} {self.at}, {self.kind}"


@dataclass(slots=True)
class Outcome:
    """What became of it."""

    case: Case
    hit: bool = False
    """Whether the call was made, so that the fault happened."""
    killed: bool = False
    refused: list[str] = field(default_factory=list)
    """Reasons of the typed errors."""
    told: Told = field(default_factory=lambda: Told([], [], []))
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All but what was told, which was checked where it was heard."""
        return {name: value for name, value in asdict(self).items() if name != "told"}

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Outcome:
        """Read it from another process."""
        return cls(**said | {"case": Case(**said["case"])})


def story(place: Place, name: str, *, first: int = 1000) -> Iterator[Callable[[], dict[str, Any]]]:
    """The steps of a story, each of which tells what it has acknowledged; `first` numbers its entries."""
    if name == "recover":
        yield lambda: (place.log.start(), {"acknowledged": [(n, place.log.entry(n).hex()) for n in range(BEFORE, BEFORE + 5)]})[1]
    for number in range(first, first + (5 if name == "append" else 2)):
        if name in {"append", "recover"}:
            yield lambda number=number: {"acknowledged": [_proof(place.append(number))]}
        elif name == "publish":
            yield lambda number=number: _published(*place.publish(number))
        else:
            yield lambda number=number: _released(*place.sample(10 * number))


def _proof(receipt: Any) -> tuple[int, str]:
    return receipt.index, receipt.entry.hex()


def _published(receipt: Any, digest: str) -> dict[str, Any]:
    return {"acknowledged": [_proof(receipt)], "published": [digest]}


def _released(receipts: list[Any], commit: str, text: str) -> dict[str, Any]:
    return {"acknowledged": [_proof(receipt) for receipt in receipts], "released": [(commit, text)]}


class Matrix:
    """Cases and their outcomes, over one template.

    Args:
        folder: Empty; everything happens in it. Best on a real disk.
    """

    def __init__(self, folder: Path) -> None:
        """Make the template."""
        folder.mkdir()
        self._folder = folder
        self._template = folder / "template"
        forked(lambda: Place.create(self._template))

    def cases(self) -> list[Case]:
        """Every call that each story makes when nothing fails, in every kind of fault."""
        found = []
        for name in STORIES:
            log = self._folder / f"{name}.trace"
            outcome = self._play(Case(name, "", 0, ""), log, ("-e", f"trace={','.join(strace.CALLS)}"))
            if outcome.wrong or outcome.refused:
                raise AssertionError(f"{name} fails without a fault: {outcome}")
            for call, times in sorted(strace.counted(log).items()):
                found += [Case(name, call, at, kind) for at in range(1, times + 1) for kind in KINDS]
        return found

    def play(self, case: Case) -> Outcome:
        """Run one case."""
        log = self._folder / "case.trace"
        inject = f"inject={case.call}:{KINDS[case.kind].format(at=case.at)}"
        return self._play(case, log, ("-e", f"trace={case.call}", "-e", inject))

    def _play(self, case: Case, log: Path, options: tuple[str, ...]) -> Outcome:
        folder = self._folder / "place"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._template, folder)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _work(folder, case, theirs)
        theirs.close()
        with closing(ours):
            _receive(ours)
            with strace.attached(pid, log, *options):
                ours.send(b"go")
                outcome = _listened(case, ours)
                if not outcome.killed and "hung" in outcome.wrong:
                    os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
        outcome.killed = os.WIFSIGNALED(status)
        traced = log.read_text()
        outcome.hit = "INJECTED" in traced or outcome.killed
        if outcome.killed != (case.kind == "SIGKILL" and outcome.hit):
            outcome.wrong.append(f"the process ended with status {status}")
        outcome.wrong += forked(lambda: examine(folder, outcome.told))[0]
        return outcome


def _work(folder: Path, case: Case, line: socket.socket) -> None:
    """Be the process of a story; never returns. Once refused, it tries one step more, if that may succeed."""
    status, patience = 1, 1 if case.story == "recover" or case.kind.endswith("for good") else 2
    try:
        strace.allow()
        place = Place(folder)
        if case.story == "recover":
            place.stage(range(500, 505))
        else:
            place.log.start()
            next(story(place, case.story, first=900))()  # so that what Python loads late is loaded
        steps = list(story(place, case.story))
        line.send(b"{}")
        line.recv(2)
        for step in steps:
            began = time.monotonic()
            try:
                told = step()
            except ModelOrganismsError as error:
                told = {"refused": error.reason}
            except Exception as error:  # noqa: BLE001 - any other is what the matrix looks for
                told = {"broke": f"{type(error).__name__}: {error}"}
            line.send(json.dumps(told | {"took": time.monotonic() - began}).encode())
            patience -= "acknowledged" not in told
            if not patience:
                break
        line.send(json.dumps({"done": True}).encode())
        status = 0
    except BaseException:  # noqa: BLE001 - nothing comes after it
        traceback.print_exc()
    finally:
        os._exit(status)


def _listened(case: Case, line: socket.socket) -> Outcome:
    outcome = Outcome(case)
    while (heard := _receive(line)) is not None and "done" not in heard:
        if "hung" in heard:
            outcome.wrong.append("hung")
            break
        outcome.told.acknowledged += [(index, bytes.fromhex(body)) for index, body in heard.get("acknowledged", [])]
        outcome.told.released += [(commit, text) for commit, text in heard.get("released", [])]
        outcome.told.published += heard.get("published", [])
        outcome.refused += [heard["refused"]] if "refused" in heard else []
        outcome.wrong += [f"an error of no kind: {heard['broke']}"] if "broke" in heard else []
        outcome.slowest_s = max(outcome.slowest_s, heard["took"])
    return outcome


def _receive(line: socket.socket) -> dict[str, Any] | None:
    """The next that is told; nothing when the process is gone."""
    if not select.select([line], [], [], LONGEST_S)[0]:
        return {"hung": True}
    try:
        data = line.recv(1 << 20)
    except ConnectionResetError:
        return None
    found: dict[str, Any] | None = json.loads(data) if data else None
    return found


def forked(*works: Callable[[], Any]) -> list[Any]:
    """Do things at once, each in a process of its own, so that no thread or connection of theirs is left here for the next fork.

    Returns:
        What each gives, as JSON has it.
    """
    running = [_forked(work) for work in works]
    found = []
    for pid, reader in running:
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        if os.waitpid(pid, 0)[1]:
            raise AssertionError("A process of the matrix broke; its traceback is above.")
        found.append(json.loads(said))
    return found


def _forked(work: Callable[[], Any]) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        except BaseException:  # noqa: BLE001 - nothing comes after it
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    return pid, reader
