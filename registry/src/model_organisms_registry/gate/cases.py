"""Case files: one call a file with the decision it must have, in `allow/` or `deny/`, named for what it shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import ConfigurationInvalid

from model_organisms_registry.gate.cedar import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_organisms_registry.gate.cedar import PolicySet

FOLDER = "cases"
_FIELDS = {"why", "principal", "action", "resource", "context", "decided_by"}
_WHO = {"id", "roles", "organisation", "active"}


@dataclass(frozen=True, slots=True)
class Case:
    """A stated call, and who must decide it how."""

    name: str
    allowed: bool
    stated: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Case:
        """Read one file.

        Raises:
            ConfigurationInvalid: It is no case.
        """
        try:
            stated = json.loads(path.read_text("utf-8"))
            who, what = stated["principal"], stated["resource"]
            if set(stated) == _FIELDS and set(who) == _WHO and {"type", "id"} <= set(what):
                return cls(f"{path.parent.name}/{path.stem}", path.parent.name == "allow", stated)
            msg = f"{path} has other fields than a case; policies/README.md lists them."
        except (OSError, ValueError, TypeError, KeyError) as error:
            msg = f"{path} cannot be read as a case ({error}); policies/README.md says how one looks."
            raise ConfigurationInvalid(msg) from error
        raise ConfigurationInvalid(msg)

    def shortcoming(self, policies: PolicySet, *, by: bool = True) -> str:
        """Say how a set decides it wrongly; nothing if it does not.

        Args:
            policies: The set.
            by: Whether the deciding policies must be those stated, too.
        """
        decision = policies.decide(*self._posed())
        found, stated = sorted(decision.reasons), sorted(self.stated["decided_by"])
        if decision.errors:
            return f"{self.name} could not be evaluated: {decision.errors[0]}"
        if decision.allowed is not self.allowed or (by and found != stated):
            answer = "allowed" if decision.allowed else "denied"
            return f"{self.name} is {answer} by {', '.join(found) or 'no policy'}: {self.stated['why']}"
        return ""

    def _posed(self) -> tuple[dict[str, Any], str]:
        who, what = self.stated["principal"], self.stated["resource"]
        account = {
            "organisation": {"__entity": {"type": "Organisation", "id": who["organisation"]}},
            "active": who["active"],
        }
        roles = [{"type": "Role", "id": role} for role in who["roles"]]
        entities = [{"uid": {"type": "User", "id": who["id"]}, "attrs": account, "parents": roles}]
        if what["id"] != who["id"]:
            uid = {"type": what["type"], "id": what["id"]}
            entities.append({"uid": uid, "attrs": what.get("attrs", account), "parents": []})
        request = {
            "principal": {"type": "User", "id": who["id"]},
            "action": {"type": "Action", "id": self.stated["action"]},
            "resource": {"type": what["type"], "id": what["id"]},
            "context": self.stated["context"],
        }
        return request, json.dumps(entities)


def read(folder: Path) -> Iterator[Case]:
    """Every case below a policy folder, by name; none where it has no cases."""
    for path in sorted((folder / FOLDER).glob("*/*.json")):
        if path.parent.name not in {"allow", "deny"}:
            raise ConfigurationInvalid(f"{path} lies neither in allow nor in deny; move it.")
        yield Case.read(path)


def shipped_refusals() -> list[Case]:
    """What every set must refuse, whoever of its policies does.

    Raises:
        ConfigurationInvalid: They were not installed, so that nothing would be held against them.
    """
    found = [case for case in read(shipped_folder()) if not case.allowed]
    if not found:
        raise ConfigurationInvalid("The policies' cases were not installed with the registry; install its wheel again.")
    return found
