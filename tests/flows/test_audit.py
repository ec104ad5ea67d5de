"""What happened, and the proof of it: read by those who may, over a real server."""

from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.formats import checkpoint, merkle
from model_organisms.records import Checkpoint

from tests.support.stories import WHY, published


def test_everything_is_in_the_ledger_and_the_ledger_verifies(world):
    published(world)
    auditor = world.person("aud")
    head = auditor.audit.verify_ledger()
    kinds = {entry.type for _, entry in auditor.audit.entries()}
    assert {"registry.start", "identity.enrol", "organisms.publish"} <= kinds
    assert head.size > 10
    for index in (0, head.size // 2, head.size - 1):
        auditor.audit.receipt(index)


def test_a_researcher_reads_their_own_and_verifies_the_whole(world):
    version, _ = published(world)
    rosa = world.person("rosa")
    rosa.access.request(version.name, "probe", purpose="replication", justification=WHY)
    own = dict(rosa.audit.entries())
    assert {"identity.enrol", "access.request"} <= {entry.type for entry in own.values()}
    assert all("users/rosa" in {entry.actor, entry.subject} for entry in own.values())
    every = dict(world.person("aud").audit.entries())
    assert own.items() < every.items()
    assert rosa.audit.verify_ledger().size >= len(every)


def test_a_proof_of_consistency_can_be_checked_elsewhere(world):
    audit = world.person("rosa").audit
    older = audit.checkpoint()
    published(world)
    newer = audit.checkpoint()
    proof = audit.consistency(older.size, newer.size)
    sizes = {"old_size": older.size, "new_size": newer.size}
    merkle.verify_consistency(proof, **sizes, old_root=older.root, new_root=newer.root)
    with pytest.raises(errors.VerificationFailed):
        merkle.verify_consistency(proof, **sizes, old_root=newer.root, new_root=older.root)


def test_a_client_that_knows_a_longer_ledger_notices_an_older_one(world):
    audit = world.person("rosa").audit
    older = audit.checkpoint()
    published(world)
    newer = audit.checkpoint()
    assert newer.size > older.size
    other = world.registry.storage.log
    assert checkpoint.consistent(older, newer, other.consistency(older.size, newer.size)) is None
    forged = audit._newest = Checkpoint(newer.origin, newer.size, b"\1" * 32, newer.note)
    with pytest.raises(errors.LedgerForked):
        audit.checkpoint()
    assert audit._newest == forged  # what it knew is kept, as evidence
    audit._newest = newer


def test_a_receipt_of_changed_bytes_is_refused(world):
    auditor = world.person("aud")
    receipt = auditor.audit.receipt(3)
    for at in (0, len(receipt.entry) // 2, len(receipt.entry) - 1):
        changed = bytearray(receipt.entry)
        changed[at] ^= 1
        with pytest.raises(errors.ReceiptInvalid):
            auditor.audit.verify(replace(receipt, entry=bytes(changed)))
    with pytest.raises(errors.ReceiptInvalid):
        auditor.audit.verify(replace(receipt, index=receipt.index + 1))


def test_entries_are_read_in_order_and_in_parts(world):
    audit = world.person("aud").audit
    every = dict(audit.entries())
    assert list(every) == list(range(len(every)))
    assert dict(audit.entries(2, 3)) == {index: every[index] for index in (2, 3, 4)}
    assert list(audit.entries(10**9)) == []
    with pytest.raises(errors.NotFound, match="there is none at"):
        audit.receipt(10**9)
