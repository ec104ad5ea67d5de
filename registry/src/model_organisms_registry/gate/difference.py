"""What one policy set decides otherwise than another: policies by id, and calls of the decision table by group."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate.cedar import FAULT
from model_organisms_registry.gate.table import rows

if TYPE_CHECKING:
    from model_organisms_registry.gate.cedar import Decision, PolicySet
    from model_organisms_registry.gate.table import Row

    _Group = tuple[str, str, bool, tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Shift:
    """Calls of the table that one set decides one way and the other set the other way, by the same policies."""

    action: str
    kind: str
    """Type of the resource."""
    allowed: bool
    """What they become."""
    before: tuple[str, ...]
    """Ids of the policies that decided; none where none permitted."""
    after: tuple[str, ...]
    calls: int
    example: str

    def as_text(self) -> str:
        """One line, and one for the example."""
        verb = "ALLOWED, was denied" if self.allowed else "denied, was allowed"
        by = f"{', '.join(self.before) or 'no permit'} -> {', '.join(self.after) or 'no permit'}"
        return f"{verb}: {self.action} on {self.kind}, {self.calls} calls ({by})\n  such as {self.example}"


@dataclass(frozen=True, slots=True)
class Difference:
    """All of it."""

    before: str
    """Digest of the set held against."""
    after: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    """Ids of policies that say something else, in scope, conditions or annotations."""
    shifts: tuple[Shift, ...]
    faults: int
    """Calls of the table that the new set cannot evaluate, where it differs, so that they are denied."""
    calls: int
    """Calls of the table."""

    @property
    def loosens(self) -> bool:
        """Whether a call is allowed that was denied."""
        return any(shift.allowed for shift in self.shifts)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self), "loosens": self.loosens}

    def as_text(self) -> str:
        """For people; the last line is the verdict."""
        lines = [f"from {self.before}", f"to   {self.after}"]
        lines += [f"{word} {name}" for word in ("added", "removed", "changed") for name in getattr(self, word)]
        lines += [shift.as_text() for shift in self.shifts]
        if self.faults:
            lines.append(f"{self.faults} calls cannot be evaluated, so they are denied")
        tightened = sum(shift.calls for shift in self.shifts if not shift.allowed)
        loosened = sum(shift.calls for shift in self.shifts if shift.allowed)
        lines.append(f"of {self.calls} calls of the decision table {tightened} are denied now, {loosened} ALLOWED now")
        return "\n".join(lines)


def compare(before: PolicySet, after: PolicySet) -> Difference:
    """Hold one set against another, over the table.

    Args:
        before: What stands.
        after: What might.

    Returns:
        The difference.
    """
    groups: dict[_Group, list[Row]] = defaultdict(list)
    faults = 0
    # Calls on which the same policies speak are decided alike, so only the others are tried.
    other = {action for action in Action if before.speaking(action) != after.speaking(action)}
    for row in (row for row in rows() if row.action in other):
        then, now = (policies.decide(row.request(), row.entities()) for policies in (before, after))
        faults += FAULT in now.reasons
        if then.allowed is not now.allowed:
            groups[_group(row, then, now)].append(row)
    shifts = [Shift(*key, len(found), found[0].as_text()) for key, found in groups.items()]
    return Difference(
        before.digest,
        after.digest,
        added=tuple(name for name in after.order if name not in before.order),
        removed=tuple(name for name in before.order if name not in after.order),
        changed=tuple(name for name in after.order if before.policies.get(name, after.policies[name]) != after.policies[name]),
        shifts=tuple(sorted(shifts, key=lambda shift: (not shift.allowed, -shift.calls))),
        faults=faults,
        calls=len(rows()),
    )


def _group(row: Row, then: Decision, now: Decision) -> _Group:
    return str(row.action), row.kind, now.allowed, then.reasons, now.reasons
