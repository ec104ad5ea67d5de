"""Draws the turns that are to be said again, in the transaction that ends them, so that none is ever forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import ConfigurationInvalid, InvalidArgument
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle, reruns

from model_organisms_registry.domain.probing import changes
from model_organisms_registry.domain.rerunning import in_draw
from model_organisms_registry.storage.catalog import reruns as rows
from model_organisms_registry.workflows import finding

if TYPE_CHECKING:
    from model_organisms.records import Entry, SampleReceipt

    from model_organisms_registry.storage.database import Connection


class Draw:
    """The draw, at one share.

    Args:
        share: Of the turns that are in it.

    Raises:
        ConfigurationInvalid: It is no share.
    """

    def __init__(self, share: float) -> None:
        """Keep it as entries state it."""
        self._share = reruns.print_share(share)
        try:
            self._on = reruns.read_share(self._share) > 0
        except InvalidArgument as error:
            raise ConfigurationInvalid(f"'sandbox.rerun_share' of registry.toml: {error.message}") from error

    def facts(self, tx: Connection, receipt: SampleReceipt, outcome: str, *, released: bool, alone: bool) -> dict[str, str]:
        """What the entry of a turn's result says of the draw; nothing where the turn is not in it.

        Args:
            tx: The transaction that ends it.
            receipt: Of the turn.
            outcome: How it ended.
            released: Whether text of it left.
            alone: Whether its session had its cell to itself: where its level was raised amid the turn, it need not have.
        """
        if not self._on or not alone or names.in_game(receipt.version):
            return {}
        level = finding.subject(tx, receipt.version).level
        drawn = in_draw(level, outcome, released=released, changed=changes(receipt.parameters))
        return {reruns.FACT: self._share} if drawn else {}

    def note(self, tx: Connection, result: Entry, receipt: SampleReceipt) -> None:
        """Draw, and where it is the turn's lot note that it is due."""
        share = result.facts.get(reruns.FACT, "")
        if share and reruns.due(merkle.leaf_hash(entries.encode(result)), share):
            rows.add(tx, rows.Due(receipt.sample, receipt.session, result.seq, receipt, result.time))
