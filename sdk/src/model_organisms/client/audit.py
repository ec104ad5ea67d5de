"""The ledger as a client sees it: receipts are verified, heads pinned, and a head that does not extend the last is an alarm."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.errors import InvalidArgument, LedgerForked, ReceiptInvalid
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle, note
from model_organisms.formats import receipt as receipts
from model_organisms.records import Receipt
from model_organisms.v1 import audit_pb2, audit_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from model_organisms.client.channel import Channel
    from model_organisms.records import Checkpoint, Entry
    from model_organisms.v1 import records_pb2

_PAGE = 500
_BEHIND_S = (0.1, 0.4, 1.0)
"""Pauses for a registry of several processes, of which one may not have read yet what another has signed."""


class Audit:
    """Reads and checks the ledger.

    - Every receipt a call brings back is checked before the call returns: entry under head, head under the pinned key,
      and that the entry says what the call did.
    - The newest head ever seen is pinned in a file; a head that is not consistent with it raises `LedgerForked`.
    - Before the first change of a connection the registry's head is held against the pinned one, so that nothing is asked of a
      registry that was set back.

    Args:
        channel: The connection.
        pin: File that keeps the newest head; None keeps it in memory.
    """

    def __init__(self, channel: Channel, pin: Path | None) -> None:
        """Read the pin, if there is one."""
        self._channel = channel
        self._stub = audit_pb2_grpc.AuditServiceStub(channel.grpc_channel)
        self._pin = pin
        self._lock = threading.Lock()
        self._newest = self._parse(pin.read_bytes()) if pin and pin.exists() else None
        self._recognised = self._newest is None

    def checkpoint(self) -> Checkpoint:
        """Fetch the newest head, verified and consistent with every head seen before.

        Raises:
            LedgerForked: It is not.
        """
        response = self._channel.call(self._stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), repeatable=True)
        return self._advance(self._parse(response.checkpoint))

    def cosigned(self) -> bytes:
        """Fetch the newest checkpoint that the registry's witnesses have cosigned; empty where there is none.

        Returns:
            A note; whoever relies on witnesses verifies it with their keys (`formats/checkpoint.py`).
        """
        return self._channel.call(self._stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), repeatable=True).cosigned

    def recognise(self) -> None:
        """Make sure, once, that the registry still has the ledger of the pinned head.

        Raises:
            LedgerForked: It has not.
        """
        if not self._recognised:
            self.checkpoint()

    def receipt(self, index: int) -> Receipt:
        """Fetch and verify the proof of one entry.

        Args:
            index: Its place in the ledger, from 0.
        """
        response = self._channel.call(self._stub.GetReceipt, audit_pb2.GetReceiptRequest(index=index), repeatable=True)
        receipt = wire.from_message(response.receipt, Receipt)
        self.verify(receipt)
        if receipt.index != index:
            raise ReceiptInvalid(f"The registry proved entry {receipt.index} and was asked for {index}; tell the operator.")
        return receipt

    def verify(self, receipt: Receipt) -> Entry:
        """Check a receipt: its entry is under its head, its head is the ledger's, and no history was rewritten.

        Returns:
            The entry it proves.

        Raises:
            ReceiptInvalid: The proof, the signature or the entry is wrong.
            LedgerForked: Its head is not consistent with one seen before.
        """
        identity = self._channel.identity
        head = receipts.verify(receipt, identity.ledger_key, origin=identity.origin)
        self._advance(head, receipt)
        return entries.parse(receipt.entry)

    def verified(self, message: records_pb2.Receipt, kind: str, subject: str, /, **facts: str) -> Receipt:
        """Check the receipt of a response, and that the entry it proves is this call's.

        Args:
            message: The receipt as it came.
            kind: Type the entry must have, such as `access.revoke`; its actor must be the caller.
            subject: What it must have happened to.
            facts: What it must say besides, by name.

        Raises:
            ReceiptInvalid: The proof is wrong, or it proves another entry.
            LedgerForked: Its head is not consistent with one seen before.
        """
        receipt = wire.from_message(message, Receipt)
        entry = self.verify(receipt)
        said = {name: entry.facts.get(name) for name in facts}
        if (entry.type, entry.subject, entry.actor, said) != (kind, subject, self._channel.identity.user, facts):
            msg = (
                f"The receipt proves another entry than this call's ({entry.type} of {entry.subject} where {kind} of {subject} "
                "belongs); nothing shows that the call did what it says: keep the receipt, and tell the operator."
            )
            raise ReceiptInvalid(msg)
        return receipt

    def entries(self, start: int = 0, count: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Read entries in order: all of them for auditors, reviewers and admins; for others, their own and what was done to them.

        Args:
            start: First index.
            count: How many at most; all there are where absent.

        Yields:
            Index and entry.
        """
        end = None if count is None else start + count
        while end is None or start < end:
            wanted = min(_PAGE, end - start) if end is not None else _PAGE
            request = audit_pb2.ListEntriesRequest(start=start, count=wanted)
            found = self._channel.call(self._stub.ListEntries, request, repeatable=True).entries
            for data in found:
                if data:
                    yield start, entries.parse(data)
                start += 1
            if len(found) < wanted:
                return

    def verify_ledger(self) -> Checkpoint:
        """Recompute the head from every entry: nothing was changed, left out or added. Anybody enrolled can.

        What the caller may not read comes as a hash, which proves as much.

        Returns:
            The verified head.

        Raises:
            LedgerForked: The entries do not give the head the registry signed.
        """
        head = self.checkpoint()
        frontier = merkle.Frontier()
        for leaf, _ in self.leaves(0, head.size):
            frontier.append(leaf)
        if frontier.size != head.size or frontier.root() != head.root:
            what = f"The {frontier.size} entries served do not give the signed head of size {head.size}"
            raise LedgerForked(f"{what}; keep your pin file and tell.")
        return head

    def leaves(self, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Read leaves in order, believing nothing: they count once their root is that of a signed head.

        Args:
            start: First index.
            end: Index after the last.

        Yields:
            Leaf hash, and the entry's bytes; these are empty where the caller may not read it.
        """
        while start < end:
            request = audit_pb2.ListEntriesRequest(start=start, count=min(_PAGE, end - start))
            found = self._channel.call(self._stub.ListEntries, request, repeatable=True)
            if not found.entries:
                return
            unread = iter(found.leaf_hashes)
            for data in found.entries:
                yield (merkle.leaf_hash(data) if data else next(unread, b"")), data
            start += len(found.entries)

    def consistency(self, old_size: int, new_size: int) -> list[bytes]:
        """Fetch the proof that the ledger of one size continues that of a smaller one, for checking it elsewhere (RFC 9162).

        Args:
            old_size: Entries then.
            new_size: Entries later.

        Returns:
            Hashes, 32 bytes each. The client itself checks each new head against the last, and needs nobody to ask.
        """
        request = audit_pb2.GetConsistencyRequest(old_size=old_size, new_size=new_size)
        return list(self._channel.call(self._stub.GetConsistency, request, repeatable=True).proof)

    def _parse(self, data: bytes) -> Checkpoint:
        identity = self._channel.identity
        return checkpoints.verified(data, note.parse_vkey(identity.ledger_key), origin=identity.origin)

    def _advance(self, head: Checkpoint, receipt: Receipt | None = None) -> Checkpoint:
        """Hold a verified head, and the receipt it came with, against the pinned one, and pin the larger."""
        with self._lock:
            newest = self._newest
            if newest is not None:
                older, newer = sorted((newest, head), key=lambda seen: seen.size)
                if receipt is None or not receipts.continues(receipt, head, newest):
                    self._check_extension(older, newer, shown=head)
            if newest is None or head.size > newest.size:
                self._newest = head
                self._write_pin(head)
            self._recognised = True
        return head

    def _check_extension(self, older: Checkpoint, newer: Checkpoint, *, shown: Checkpoint) -> None:
        try:
            proof = self._extension(older, newer) if 0 < older.size < newer.size else []
            checkpoints.consistent(older, newer, proof)
        except LedgerForked as error:
            error.details["size"] = str(shown.size)
            raise

    def _extension(self, older: Checkpoint, newer: Checkpoint) -> list[bytes]:
        """Ask for the proof; who cannot give it, and is not only a moment behind, no longer has what was seen."""
        request = audit_pb2.GetConsistencyRequest(old_size=older.size, new_size=newer.size)
        for pause in _BEHIND_S:
            try:
                return list(self._channel.call(self._stub.GetConsistency, request, repeatable=True).proof)
            except InvalidArgument:
                time.sleep(pause)
        msg = (
            f"The registry's ledger had {newer.size} entries and now has fewer: history was cut, or a backup was restored. "
            "Keep your pin file and tell."
        )
        raise LedgerForked(msg, kind="rollback")

    def _write_pin(self, head: Checkpoint) -> None:
        if self._pin is None:
            return
        partial = self._pin.with_name(f".{self._pin.name}.{os.getpid()}.{threading.get_ident()}")
        partial.write_bytes(head.note)
        partial.replace(self._pin)
