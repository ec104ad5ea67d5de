"""Writes the tables of policies/README.md from the policies and the decision table; `python -m tests.policies.document` does it.

The rest of that page is written by hand; what stands between the two marks is not.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from model_organisms_registry.gate.cedar import PolicySet, shipped_folder
from model_organisms_registry.gate.table import rows

PAGE = shipped_folder() / "README.md"
BETWEEN = re.compile(r"(?<=<!-- tables: begin -->\n).*?(?=<!-- tables: end -->)", re.DOTALL)


@cache
def decided():
    """Every call of the table, with the decision of the shipped policies."""
    policies = PolicySet.read()
    return tuple((row, policies.decide(row.request(), row.entities())) for row in rows())


def tables():
    """Both tables, as Markdown."""
    policies = PolicySet.read()
    calls, allowed, deciding = Counter(), Counter(), Counter()
    for row, decision in decided():
        which = (str(row.action), row.kind)
        calls[which] += 1
        allowed[which] += decision.allowed
        deciding.update(decision.reasons)
    lines = ["### Decisions", "", f"{len(rows()):,} calls.", ""]
    lines += ["| action | resource | calls | allowed |", "|---|---|---:|---:|"]
    lines += [f"| {action} | {kind} | {calls[action, kind]} | {allowed[action, kind]} |" for action, kind in calls]
    lines += ["", "### Policies", "", "| policy | file | says | decides of these calls |", "|---|---|---|---:|"]
    for name, policy in policies.policies.items():
        said = f"no: {policies.forbids[name].advice}" if name in policies.forbids else "yes"
        lines.append(f"| `{name}` | {policy.file} | {said} | {deciding[name]} |")
    return "\n".join(["", *lines, "", ""])


def main():
    PAGE.write_text(BETWEEN.sub(lambda _: tables(), PAGE.read_text()))


if __name__ == "__main__":
    main()
