"""What is measured in a session, in the steps of a sample: intent, work, entry, release. What the numbers are, the cell knows."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms.errors import ModelOrganismsError
from model_organisms.formats import sampled
from model_organisms.records import Direction, Inquiry, Measure, Probe

from model_organisms_registry.domain import probing as rules
from model_organisms_registry.domain.audit import Event
from model_organisms_registry.workflows import asking

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_organisms.records import Message, NewDirection, Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.workflows.asking import Question
    from model_organisms_registry.workflows.living import Turn
    from model_organisms_registry.workflows.sampling import Sampling


class Probing:
    """Probes and directions."""

    def __init__(self, sampling: Sampling) -> None:
        """Keep whose steps these are."""
        self._sampling = sampling

    def probe(self, call: Call, session: str, messages: Sequence[Message], inquiry: Inquiry) -> tuple[Probe, Receipt]:
        """Release rounded numbers, counted."""
        with self._asked(call, session, asking.probe(session, messages, inquiry)) as turn:
            asked = inquiry if turn.dose is None else replace(inquiry, scale=turn.dose)
            numbers = turn.cell.probe(messages, inquiry=asked, max_seconds=_left(call))
            hidden = turn.cell.info.hidden
            came = rules.Answer(numbers.positions, numbers.kl, numbers.readings)
            answer = rules.cut_down(inquiry, came, hidden=hidden)
            kl_to_base = answer.kl[-1] if answer.kl else None
            text = sampled.probe_text(answer.positions, kl_to_base, kl=answer.kl, readings=answer.readings)
            self._sampling.release_numbers(turn, text, answer.values)
        receipt = turn.receipt
        stated = self._sampling.receipt_of(turn, receipt)
        return Probe(answer.positions, kl_to_base, stated, answer.kl, answer.readings), receipt

    def direction(self, call: Call, session: str, asked: NewDirection) -> tuple[Direction, Receipt]:
        """Make a direction; its length and cosines leave, it stays in the cell."""
        with self._asked(call, session, asking.direction(session, asked)) as turn:
            name = f"{session}/directions/{turn.number}"
            made = turn.cell.direct(replace(asked, name=name), max_seconds=_left(call))
            norm = rules.rounded(made.norm, Measure.NORMS)
            cosines = tuple(rules.rounded(value, Measure.COSINES) for value in made.cosines)
            layer = rules.SENT if asked.vector else asked.layer
            text = sampled.direction_text(name, layer=layer, norm=norm, cosines=cosines, sha256=made.sha256)
            turn.facts["direction"] = made.sha256
            self._sampling.release_numbers(turn, text, 1 + len(cosines))
        receipt = turn.receipt
        stated = self._sampling.receipt_of(turn, receipt)
        return Direction(name, layer, norm, cosines, made.sha256, stated), receipt

    @contextmanager
    def _asked(self, call: Call, session: str, question: Question) -> Iterator[Turn]:
        """Announce a question, and write down how it ended; after the block `turn.receipt` is the result's."""
        turn = self._sampling.begin(call, session, question)
        outcome = "failed"
        try:
            yield turn
            outcome = "released"
        except ModelOrganismsError as error:
            why = self._sampling.why(turn, error)
            outcome = why.reason.lower()
            turn.witnessed = False  # nothing leaves any more, so its result waits for nobody
            turn.facts.pop("direction", None)
            raise why from error
        finally:
            turn.receipt = self._sampling.finish(turn, Event.PROBE_RESULT, outcome)


def _left(call: Call) -> float:
    return max(1.0, (call.deadline - call.time).total_seconds())
