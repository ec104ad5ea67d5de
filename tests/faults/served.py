"""The same faults under a whole registry: a client publishes and pulls over gRPC while system calls of the server fail.

`python -m tests.faults.served FOLDER` is that server; all else here is the client's side, in another process.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms.errors import AlreadyExists, ModelOrganismsError, Unavailable

from tests.faults import strace
from tests.faults.matrix import KINDS, Case, Outcome
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model_organisms.client.client import Client

STORY = "over gRPC"
_BASE = "test/tiny"
_RECOVERED_S = 30.0


class Served:
    """A registry's process, and two people who use it.

    Args:
        folder: Empty.
    """

    def __init__(self, folder: Path) -> None:
        """Found it, serve it, enrol a publisher and a researcher, and publish something to be pulled."""
        folder.mkdir()
        from model_organisms.client.client import login
        from model_organisms_registry.founding import found
        from model_organisms_registry.testing import settings

        from tests.support.stories import provenance

        self._stated = provenance()
        self.config = settings(folder / "data")
        ticket = found(self.config, now=datetime.now(UTC))
        self._log = folder / "serve.log"
        self._trace = folder / "served.trace"
        self._start()
        self._people: dict[str, Client] = {}
        with login(str(ticket), folder / "admin.json") as admin:
            for name, role in (("pia", "publisher"), ("rosa", "researcher"), ("ravi", "reviewer")):
                invitation = admin.users.invite(name, organisation=f"{name}-lab", roles=[role])
                self._people[name] = login(invitation.ticket, folder / f"{name}.json")
        self._people["pia"].organisms.create("organisms/faulty", level="CL1", base_model=_BASE)
        self._numbers = 0
        self._version = self._publish()

    def cases(self) -> list[Case]:
        """Every write call of publishing and pulling when nothing fails; the kinds of fault take turns."""
        outcome = self._play(Case(STORY, "", 0, ""), f"trace={','.join(strace.CALLS)}")
        if outcome.wrong or outcome.refused:
            raise AssertionError(f"publishing and pulling fail without a fault: {outcome}")
        counts, kinds = sorted(strace.counted(self._trace).items()), itertools.cycle(KINDS)
        return [Case(STORY, call, at, next(kinds)) for call, times in counts for at in range(1, times + 1)]

    def play(self, case: Case) -> Outcome:
        """Run one case, and see that the registry is whole and at work after it."""
        return self._play(case, f"trace={case.call}", f"inject={case.call}:{KINDS[case.kind].format(at=case.at)}")

    def stop(self) -> None:
        """End everything."""
        for person in self._people.values():
            person.close()
        self._process.kill()
        self._process.wait()

    def _play(self, case: Case, *expressions: str) -> Outcome:
        outcome = Outcome(case)
        grant = _patiently(self._granted)
        with strace.attached(self._process.pid, self._trace, *[word for one in expressions for word in ("-e", one)]):
            version = self._tried(outcome, self._publish)
            receipt = self._tried(outcome, lambda: self._pull(grant))
        outcome.killed = self._process.poll() is not None
        outcome.hit = outcome.killed or "INJECTED" in self._trace.read_text()
        if outcome.killed != (case.kind == "SIGKILL" and outcome.hit):
            outcome.wrong.append(f"the server ended:\n{self._log.read_text()[-2000:]}")
        if outcome.killed:
            self._start()
        self._at_work_again(outcome)
        if receipt is not None:
            outcome.told.acknowledged.append((receipt.index, receipt.entry))
        outcome.wrong += self._found_wrong(outcome, version)
        return outcome

    def _tried(self, outcome: Outcome, step: Callable[[], Any]) -> Any:
        began = time.monotonic()
        try:
            return step()
        except ModelOrganismsError as error:
            outcome.refused.append(error.reason)
            if error.reason == "INTERNAL":
                outcome.wrong.append(f"an error that nobody foresaw:\n{self._log.read_text()[-3000:]}")
            return None
        finally:
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - began)

    def _publish(self) -> str:
        from tests.support.adapters import tiny_bundle

        self._numbers += 1
        bundle = tiny_bundle(seed=self._numbers)
        published = self._people["pia"].organisms.publish("organisms/faulty", bundle, provenance=self._stated)
        return published.name

    def _granted(self) -> str:
        asked = {"purpose": "replication", "justification": "We replicate a toy of a known kind."}
        request = self._people["rosa"].access.request(self._version, "pull", **asked)
        return request.grant or self._people["ravi"].access.approve(request.name, reason="Fine.").grant

    def _pull(self, grant: str) -> Any:
        with self._people["rosa"].organisms.pull(self._version, grant=grant, timeout_s=20) as pulled:
            return pulled.receipt

    def _at_work_again(self, outcome: Outcome) -> None:
        """Publish until it succeeds: the last bundle first, whose fate may be unknown to its publisher."""
        until = time.monotonic() + _RECOVERED_S
        if outcome.refused:
            self._numbers -= 1
        while True:
            try:
                self._publish()
            except AlreadyExists:
                continue
            except ModelOrganismsError as error:
                self._numbers -= 1
                if time.monotonic() > until:
                    outcome.wrong.append(f"it does not recover: {error.message}\n{self._log.read_text()[-2000:]}")
                    return
                time.sleep(0.05)
            else:
                return

    def _found_wrong(self, outcome: Outcome, version: str | None) -> Sequence[str]:
        from model_organisms_registry.inspection import inspect
        from model_organisms_registry.ledger import rows
        from model_organisms_registry.storage.database import Database

        report = inspect(self.config)
        wrong = [f"{finding.place}: {finding.what}" for finding in report.findings]
        database = Database(self.config.database_url)
        with database.read() as tx:
            bodies = rows.read_entries(tx, 0, report.entries)
        database.close()
        told = outcome.told.acknowledged
        wrong += [f"entry {index} was acknowledged and is gone" for index, body in told if bodies[index : index + 1] != [body]]
        if version and not any(b'"organisms.publish"' in body and f'"{version}"'.encode() in body for body in bodies):
            wrong.append(f"{version} was acknowledged and has no entry")
        return wrong

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.served", str(self.config.folder)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"listens\n":
            raise AssertionError(f"the registry does not start:\n{self._log.read_text()[-3000:]}")


def _patiently(step: Callable[[], str]) -> str:
    """Do something again until it succeeds: a connection that was refused while the registry was down waits before it tries."""
    until = time.monotonic() + _RECOVERED_S
    while True:
        try:
            return step()
        except Unavailable:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def serve(folder: Path) -> None:
    """Be the server, until standard input ends or the process does."""
    from model_organisms_registry.config import load
    from model_organisms_registry.server import Registry

    strace.allow()
    registry = Registry(load(folder))
    registry.start()
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
