"""Holds what clients received against the ledger: nothing that anybody holds may be missing there.

A finished answer names its result entry, which repeats the digest of its text and of its receipt; the windows it came in are the
release entries before that. An answer that was cut off has no receipt: the windows that did arrive must have been entered all the
same, in that session, in that order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING

from model_organisms.formats import sampled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model_organisms.formats.entry import Entry
    from model_organisms.records import SampleReceipt

    from tests.chaos.clients import Held

RESULTS = ("sandbox.sample.result", "sandbox.probe.result")
RELEASE = "sandbox.sample.release"


def missing(held: Sequence[Held], entries: Sequence[Entry]) -> list[str]:
    """Say what somebody holds and the ledger does not.

    Args:
        held: What the clients kept.
        entries: The whole ledger, by index.

    Returns:
        A sentence for each piece that is missing or differs; none is as it should be.
    """
    released = _released(entries)
    said: list[str] = []
    finished = {one.sample.receipt.sample for one in held if one.sample}
    for one in held:
        if one.sample:
            said += _finished(one, one.sample.receipt, entries, released)
        elif one.probe:
            said += _result(one.probe.receipt, entries)
        elif not _somewhere(one, released, besides=finished):
            said.append(f"{one.session}: {len(one.windows)} windows of an answer that was cut off were never entered")
    twice = [name for name, count in _counted(one.sample.receipt.sample for one in held if one.sample).items() if count > 1]
    return said + [f"{name}: two answers bear this name" for name in twice]


def _finished(one: Held, receipt: SampleReceipt, entries: Sequence[Entry], released: Mapping[str, list[int]]) -> list[str]:
    text = "".join(one.windows)
    said = _result(receipt, entries)
    if hashlib.sha256(text.encode()).hexdigest() != receipt.output_sha256:
        said.append(f"{receipt.sample}: its windows are not its text")
    # The last window may be empty, and is entered like the others.
    if released.get(receipt.sample, []) != _sizes(one.windows):
        said.append(
            f"{receipt.sample}: windows of {_sizes(one.windows)} bytes were received, {released.get(receipt.sample)} entered"
        )
    return said


def _result(receipt: SampleReceipt, entries: Sequence[Entry]) -> list[str]:
    if not 0 <= receipt.ledger_index < len(entries):
        return [f"{receipt.sample}: the ledger has no entry {receipt.ledger_index}"]
    entry = entries[receipt.ledger_index]
    right = entry.type in RESULTS and entry.subject == receipt.sample
    facts = {"session": receipt.session, "output": receipt.output_sha256, "receipt": sampled.receipt_digest(receipt)}
    if not right or any(entry.facts.get(name) != value for name, value in facts.items()):
        return [f"{receipt.sample}: entry {receipt.ledger_index} ({entry.type} of {entry.subject}) is not its result"]
    return []


def _somewhere(one: Held, released: Mapping[str, list[int]], *, besides: set[str]) -> bool:
    """Whether some answer of that session, of which nobody has a receipt, begins with these windows."""
    sizes = _sizes(one.windows)
    candidates = (name for name in released if name.startswith(f"{one.session}/") and name not in besides)
    return any(released[name][: len(sizes)] == sizes for name in candidates)


def _released(entries: Iterable[Entry]) -> dict[str, list[int]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for entry in entries:
        if entry.type == RELEASE:
            found[entry.subject].append(int(entry.facts["bytes"]))
    return dict(found)


def _sizes(windows: Iterable[str]) -> list[int]:
    return [len(window.encode()) for window in windows]


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for name in names:
        counts[name] += 1
    return counts
