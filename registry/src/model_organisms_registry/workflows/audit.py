"""Reading the ledger: heads and proofs for everybody enrolled, all entries for those who may read them, else one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.formats import entry as entries
from model_organisms.formats import merkle

from model_organisms_registry.domain import audit as rules
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities

if TYPE_CHECKING:
    from model_organisms.records import Checkpoint, Receipt

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.ledger.log import Log


class Audit:
    """The ledger's readers' side.

    Args:
        log: The ledger.
        gate: Decides who may.
    """

    def __init__(self, log: Log, gate: Gate) -> None:
        """Keep both."""
        self._log = log
        self._gate = gate

    def checkpoint(self, call: Call) -> tuple[Checkpoint, bytes]:
        """The newest signed head, and the newest note that is cosigned; they name nobody, so everybody enrolled may have them."""
        self._permit(call, own=True)
        return self._log.checkpoint(), self._log.cosigned_checkpoint()

    def consistency(self, call: Call, old_size: int, new_size: int) -> list[bytes]:
        """Proof that one head extends another; likewise."""
        self._permit(call, own=True)
        return list(self._log.consistency(old_size, new_size))

    def entries(self, call: Call, start: int, count: int) -> tuple[list[bytes], list[bytes]]:
        """Entries in order.

        Returns:
            Each entry, empty where the caller may not read it; and the leaf hashes of the empty ones. A hash gives nothing away:
            each entry holds a random number.
        """
        every = rules.reads_all(call.user)
        self._permit(call, own=not every)
        found = self._log.entries(start, count)
        if every:
            return found, []
        shown = [body if rules.readable(call.user, entries.parse(body)) else b"" for body in found]
        return shown, [merkle.leaf_hash(body) for body, seen in zip(found, shown, strict=True) if not seen]

    def receipt(self, call: Call, index: int) -> Receipt:
        """Proof of one entry: the caller's own, or any for those who may read all."""
        receipt = self._log.receipt(index)
        self._permit(call, own=rules.readable(call.user, entries.parse(receipt.entry)))
        return receipt

    def _permit(self, call: Call, *, own: bool) -> None:
        self._gate.permit(call, Action.READ_LEDGER, entities.ledger(), own=own)
