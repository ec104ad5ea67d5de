"""What evaluations found of a version, out of what is attested of it; `client.organisms.evaluations` is the way here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import NotFound, SignatureInvalid
from model_organisms.formats import dsse, statements
from model_organisms.formats.evaluation import parse_evaluation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_organisms.formats.evaluation import Evaluation
    from model_organisms.records import Attestation


@dataclass(frozen=True, slots=True)
class AttestedEvaluation:
    """An evaluation, and whose word it is."""

    attestation: Attestation
    evaluation: Evaluation
    signed: bool
    """Whether it was checked here that the author's key, as it is now, signed it; where not, the registry says that it did once.

    Researchers do not see each other's keys, and old ones are of no account that stands.
    """

    @property
    def by(self) -> str:
        """Who attests it."""
        return self.attestation.author


def evaluations(attestations: Iterable[Attestation], key_of: Callable[[str], bytes]) -> tuple[AttestedEvaluation, ...]:
    """Read evaluations, oldest first; other statements are left out.

    Args:
        attestations: Of a version.
        key_of: Gives an account's identity key, or raises NotFound.

    Raises:
        InvalidProvenance: The registry sent an evaluation that is none.
    """
    found = [one for one in attestations if one.predicate_type == statements.EVALUATION_TYPE]
    keys: dict[str, bytes] = {}
    for author in {one.author for one in found}:
        with suppress(NotFound):
            keys[author] = key_of(author)
    read = []
    for one in sorted(found, key=lambda one: (one.create_time, one.name)):
        evaluation, version = parse_evaluation(dsse.unsafe_payload(one.envelope, payload_type=statements.PAYLOAD_TYPE))
        if version.name == one.name.partition("/attestations/")[0]:
            read.append(AttestedEvaluation(one, evaluation, _signed(one.envelope, keys.get(one.author, b""))))
    return tuple(read)


def _signed(envelope: bytes, key: bytes) -> bool:
    if not key:
        return False
    try:
        dsse.verify(envelope, key, payload_type=statements.PAYLOAD_TYPE)
    except SignatureInvalid:
        return False
    return True
