"""What `mo-registry policy` does: hold a folder of policies to its cases and against what stands. It changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from model_organisms import names
from model_organisms.errors import ConfigurationInvalid, Internal

from model_organisms_registry.domain.hazard import TABLE, tightened
from model_organisms_registry.domain.permits import Call
from model_organisms_registry.gate import cases
from model_organisms_registry.gate.cedar import PolicySet
from model_organisms_registry.gate.difference import Difference, compare
from model_organisms_registry.gate.gate import Gate
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.database import Database
from model_organisms_registry.workflows import policies
from model_organisms_registry.workflows.explaining import Explaining

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from model_organisms.records import Entry, Explanation, Rung

    from model_organisms_registry.config import Config
    from model_organisms_registry.gate.entities import Conditions


@dataclass(frozen=True, slots=True)
class Check:
    """What a folder of policies is worth."""

    digest: str
    """Of the set; empty where there is none."""
    policies: int
    cases: int
    findings: tuple[str, ...]
    difference: Difference | None

    @property
    def sound(self) -> bool:
        """Whether it could stand: it is valid, its cases hold, and every call of the table can be evaluated."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        shown = {"digest": self.digest, "policies": self.policies, "cases": self.cases, "findings": self.findings}
        return {**shown, "sound": self.sound, "difference": self.difference.as_json() if self.difference else None}

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [f"WRONG {finding}" for finding in self.findings]
        if self.difference is not None:
            lines = [f"{self.policies} policies, {self.cases} cases", self.difference.as_text(), *lines]
        return "\n".join([*lines, f"sound: {self.digest}" if self.sound else f"{len(self.findings)} findings; it must not stand"])


def check(folder: Path, standing: PolicySet) -> Check:
    """Read a folder, run its cases and the shipped refusals, and hold it against the standing set.

    1. It is a set: it parses, it is valid under the schema, every policy has its annotations (`gate/cedar.py`).
    2. Its own cases are decided as they say, by those they say.
    3. What the shipped cases refuse, it refuses, whoever of its policies does.
    4. No call of the decision table fails to be evaluated.
    """
    try:
        found = PolicySet.read(folder)
        own = list(cases.read(folder))
        shipped = cases.shipped_refusals()
    except ConfigurationInvalid as error:
        return Check("", 0, 0, (error.message,), None)
    wrong = [case.shortcoming(found) for case in own] + [case.shortcoming(found, by=False) for case in shipped]
    difference = compare(standing, found)
    faults = [f"{difference.faults} calls of the decision table cannot be evaluated"] if difference.faults else []
    findings = tuple(dict.fromkeys(filter(None, wrong + faults)))
    return Check(found.digest, len(found.order), len(own) + len(shipped), findings, difference)


def diff(folder: Path, standing: PolicySet) -> Difference:
    """Hold a folder against the standing set.

    Raises:
        ConfigurationInvalid: It is no policy set.
    """
    return compare(standing, PolicySet.read(folder))


def standing(config: Config | None) -> PolicySet:
    """The set that decides in a registry; without one, the program's own."""
    if config is None:
        return PolicySet.read()
    database = Database(config.database_url)
    try:
        return policies.standing(database, config.policies_folder)
    finally:
        database.close()


def explain(
    config: Config, actor: str, action: str, resource: str, *, rung: Rung | None, now: datetime, conditions: Conditions
) -> Explanation:
    """Say how a call by somebody would be decided in a registry, as it would be said to them.

    Args:
        config: Settings of the registry; its catalog is only read.
        actor: The user who would call.
        action: An action of the policies.
        resource: A resource name, `registry` or `ledger`.
        rung: With `request`: the rung that would be asked for.
        now: The time.
        conditions: How the registry is taken to stand: whether walls and witness are there shows only while it runs.

    Returns:
        The explanation.

    Raises:
        NotFound: There is no such user.
        InvalidArgument: There is no such action, or it is on something else.
    """
    database = Database(config.database_url)
    try:
        with database.read() as tx:
            user = accounts.user(tx, names.user(actor))
        gate = Gate(standing(config), record_denial=_unrecorded, conditions=lambda: conditions)
        table = tightened(TABLE, config.hazard) if config.hazard else TABLE
        call = Call(user, "", now, now, "mo-registry policy explain")
        return Explaining(database, gate, table).explain(call, action, resource, rung=rung)
    finally:
        database.close()


def _unrecorded(entry: Entry) -> NoReturn:
    raise Internal(f"An explanation must record nothing, and recorded {entry.type}; report this.")
