"""What reports about cells on their holders' machines become: something to keep, facts of entries, and a receipt; no I/O."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from model_organisms.formats import sampled
from model_organisms.records import SampleReceipt

from model_organisms_registry.domain import glovebox
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.budgets import stated
from model_organisms_registry.storage.catalog.sandbox import IntentKind
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from model_organisms.records import Budget, Entry, Session

    from model_organisms_registry.domain.glovebox import Report
    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.storage.catalog.local_turns import LocalTurn


def opening(session: Session) -> dict[str, str]:
    """What the entry of any session's beginning says of it, wherever its cell is."""
    return {
        "version": session.version.name,
        "digest": session.version.digest,
        "purpose": session.purpose.value,
        "expires": session.expire_time.isoformat(timespec="seconds"),
        "budget": stated(session.budget),
    }


def opened(permit: Permit, session: Session) -> Entry:
    """The entry of a local session that was opened."""
    facts = opening(session) | {"claimed_walls": ",".join(session.walls), "place": "holder"}
    about = partial(entry, Event.OPEN_SESSION, permit.call, subject=session.name, permit=permit, grant=session.grant)
    return about(seq=seq(), facts=facts)


def content(turn: LocalTurn, report: Report) -> bytes:
    """What is kept of a report: the text, or the numbers as they are released."""
    if turn.kind is IntentKind.SAMPLE or report.finish_reason == glovebox.FAILED:
        return report.text.encode()
    positions = sampled.released(report.positions)
    return sampled.probe_text(positions, sampled.rounded(report.kl_to_base)).encode()


def outcome(turn: LocalTurn, report: Report) -> str:
    """How a question ended, as its entry says it."""
    released = turn.kind is IntentKind.PROBE and report.finish_reason != glovebox.FAILED
    return glovebox.RELEASED if released else report.finish_reason


def counts(turn: LocalTurn, used: Budget) -> dict[str, str]:
    """What was used, as facts."""
    if turn.kind is IntentKind.PROBE:
        return {"values": str(used.probe_values)}
    return {"tokens": str(used.tokens), "bytes": str(used.output_bytes)}


def result_facts(turn: LocalTurn, receipt: SampleReceipt, used: Budget, *, outcome: str) -> dict[str, str]:
    """The facts of the entry of a report."""
    facts = {"session": turn.session, "outcome": outcome, "output": receipt.output_sha256}
    return facts | {"receipt": sampled.receipt_digest(receipt)} | counts(turn, used)


def receipt_of(session: Session, turn: LocalTurn, report: Report, content: bytes, *, intent: int) -> SampleReceipt:
    """The receipt of a report; its place in the ledger is not known yet."""
    cell = report.cell
    return SampleReceipt(
        sample=turn.name,
        version=session.version.name,
        version_digest=session.version.digest,
        base_digest=cell.base_digest,
        tokenizer_digest=cell.tokenizer_digest,
        template_digest=cell.template_digest,
        adapter_digests=cell.adapter_digests,
        modules_applied=cell.modules_applied,
        parameters=turn.parameters,
        engine=cell.engine,
        session=session.name,
        ledger_index=intent,
        tokens=report.tokens,
        output_sha256=hashlib.sha256(content).hexdigest(),
        local=True,
    )
