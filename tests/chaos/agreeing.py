"""Holds what sessions and grants have spent against the ledger, by other code than the registry's own `reconcile`.

What a session has spent is what its results say, and the ends of questions that a crash cut off; for a question that has neither
yet, all that was set aside for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from model_organisms.formats.entry import Entry
    from model_organisms.records import Grant
    from model_organisms.records import Session as SessionRecord

INTENT = "sandbox.sample.intent"
RESULTS = frozenset({"sandbox.sample.result", "registry.lost"})
_MOST = re.compile(r"\bmax_tokens=(\d+)")


def disagreements(sessions: Iterable[SessionRecord], grants: Iterable[Grant], entries: Sequence[Entry]) -> list[str]:
    """Say where tokens spent and tokens entered differ.

    Args:
        sessions: All of them.
        grants: All that they were opened under.
        entries: The whole ledger, by index.
    """
    entered = spent_by_session(entries)
    said, by_grant = [], defaultdict(int)
    for session in sessions:
        by_grant[session.grant] += session.spent.tokens
        if session.spent.tokens != entered.get(session.name, 0):
            said.append(f"{session.name}: {session.spent.tokens} tokens spent, {entered.get(session.name, 0)} entered")
    wrong = (grant for grant in grants if grant.spent.tokens != by_grant.get(grant.name, 0))
    return said + [f"{one.name}: {one.spent.tokens} tokens spent, its sessions {by_grant.get(one.name, 0)}" for one in wrong]


def spent_by_session(entries: Sequence[Entry]) -> dict[str, int]:
    """Tokens of each session: of results what they say, of a question without one what was set aside."""
    told: defaultdict[str, int] = defaultdict(int)
    results: dict[str, Entry] = {entry.subject: entry for entry in entries if entry.type in RESULTS}
    for entry in entries:
        if entry.type == INTENT:
            result = results.get(entry.subject)
            most = _MOST.search(entry.facts["parameters"])
            tokens = int(result.facts["tokens"]) if result else int(most[1])
            told[entry.facts["session"]] += tokens
    return dict(told)
