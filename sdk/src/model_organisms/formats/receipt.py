"""C2SP tlog-proof: the receipt that an entry is in the ledger, as text that outlives the registry; nothing is fetched here.

c2sp.org/tlog-proof@v1
extra <base64 of the entry>     not authenticated by the format, but hashed by `verify`
index <decimal>
<base64 sibling hash>           from the leaf up, one a line
                                an empty line
<the checkpoint, verbatim>
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model_organisms.errors import LedgerForked, ReceiptInvalid, SignatureInvalid
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats import merkle
from model_organisms.formats.note import decode64, encode64, parse_vkey
from model_organisms.formats.tiles import MAX_ENTRY_SIZE
from model_organisms.records import Receipt

if TYPE_CHECKING:
    from model_organisms.records import Checkpoint

HEADER = "c2sp.org/tlog-proof@v1"
_FORM = re.compile(
    rb"c2sp\.org/tlog-proof@v1\n(?:extra ([A-Za-z0-9+/=]*)\n)?index (0|[1-9][0-9]{0,18})\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n"
)


def text(receipt: Receipt) -> bytes:
    """Print a receipt; keep it as `NAME.tlog-proof`."""
    lines = [HEADER, f"extra {encode64(receipt.entry)}", f"index {receipt.index}", *map(encode64, receipt.proof), "", ""]
    return "\n".join(lines).encode() + receipt.checkpoint


def parse(data: bytes, *, entry: bytes | None = None) -> Receipt:
    """Read a receipt, believing nothing; then call `verify`.

    Args:
        data: The text.
        entry: The entry's bytes, for a proof by somebody else that does not carry them.

    Raises:
        ReceiptInvalid: It is no tlog-proof to the letter, or the entry is in neither place, or in both and not the same.
    """
    found = _FORM.match(data)
    if found is None:
        raise ReceiptInvalid("This is not a ledger receipt (c2sp.org/tlog-proof@v1); fetch it again.")
    extra, index, hashes = found.groups()
    try:
        carried = None if extra is None else decode64(extra.decode("ascii"))
        proof = tuple(decode64(line) for line in hashes.decode("ascii").split())
    except ValueError:
        raise ReceiptInvalid("The receipt's base64 is not canonical; fetch it again.") from None
    if entry is not None and carried not in {None, entry}:
        raise ReceiptInvalid("The receipt is of another entry than the one given; fetch this entry's own receipt.")
    entry = carried if entry is None else entry
    if entry is None:
        raise ReceiptInvalid("The receipt does not carry its entry; give the entry's bytes beside it.")
    if len(entry) > MAX_ENTRY_SIZE:
        raise ReceiptInvalid(f"The receipt's entry is longer than {MAX_ENTRY_SIZE} bytes; no ledger holds it.")
    return Receipt(int(index), entry, proof, data[found.end() :])


def verify(receipt: Receipt, vkey: str, *, origin: str) -> Checkpoint:
    """Check that a receipt proves its entry is in the ledger.

    1. The checkpoint is of the ledger `origin` and signed by `vkey`. 2. The entry's own bytes hash to the leaf.
    3. The proof leads from that leaf, at that index, to the checkpoint's root.
    What the entry says (`formats/entry.py`), and that the checkpoint continues those seen before
    (`checkpoint.consistent`), is for the caller to check.

    Args:
        receipt: Receipt from a registry, a file or a colleague.
        vkey: The ledger's verifier key, from the caller's own configuration, never from where the receipt came.
        origin: Name of the ledger.

    Returns:
        The verified checkpoint, to pin.

    Raises:
        ReceiptInvalid: One of the three does not hold.
        ConfigurationInvalid: `vkey` is no verifier key.
    """
    key = parse_vkey(vkey)
    try:
        head = checkpoints.verified(receipt.checkpoint, key, origin=origin)
    except SignatureInvalid as error:
        raise ReceiptInvalid(f"The receipt's checkpoint was refused. {error.message}") from error
    leaf = merkle.leaf_hash(receipt.entry)
    merkle.verify_inclusion(leaf, receipt.proof, index=receipt.index, size=head.size, root=head.root)
    return head


def continues(receipt: Receipt, head: Checkpoint, old: Checkpoint) -> bool:
    """Say whether a receipt by itself shows that its checkpoint continues an older one: it does if its entry came right after.

    Args:
        receipt: A receipt that passed `verify`.
        head: Its checkpoint, as `verify` returned it.
        old: A checkpoint of the same ledger, opened by `checkpoint.verified`.

    Returns:
        True if it does; False if it does not say, so that a consistency proof is needed.

    Raises:
        LedgerForked: The entry is right after the older checkpoint, and what is before it is another history.
    """
    if receipt.index != old.size:
        return False
    if merkle.root_before(receipt.proof, index=receipt.index, size=head.size) != old.root:
        raise LedgerForked(
            f"The ledger of {head.size} entries does not continue the one of {old.size}; keep both checkpoints as evidence."
        )
    return True
