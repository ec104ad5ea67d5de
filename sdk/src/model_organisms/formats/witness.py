"""C2SP tlog-witness: what a log sends a witness to have a checkpoint cosigned, and what comes back; nothing is sent here.

    old <size of the last checkpoint that this witness cosigned>
    <base64 hash>           consistency proof from there, one a line, at most 63
                            an empty line
    <the checkpoint>        a signed note, verbatim

The answer is one or more signature lines of a note, cosignatures of the witness (`checkpoint.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument, SignatureInvalid
from model_organisms.formats import checkpoint as checkpoints
from model_organisms.formats.note import MAX_NOTE_SIZE, Note, decode64, encode64, parse

if TYPE_CHECKING:
    from model_organisms.formats.note import VerifierKey

PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
"""Content type of a refusal that names the size the witness has."""

MOST_PROOF = 63
MAX_SUBMISSION = 32 + MOST_PROOF * 45 + 1 + MAX_NOTE_SIZE
_FORM = re.compile(rb"old (0|[1-9][0-9]{0,18})\n((?:[A-Za-z0-9+/]{43}=\n){0,63})\n")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint on its way to a witness. Who made one with `parse_submission` must not believe it."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def print_submission(submission: Submission) -> bytes:
    """Print the body of a request."""
    lines = [f"old {submission.old_size}", *map(encode64, submission.proof), "", ""]
    return "\n".join(lines).encode() + submission.note


def parse_submission(data: bytes) -> Submission:
    """Read the body of a request, believing nothing.

    Raises:
        InvalidArgument: It is none, to the letter of the specification.
    """
    found = _FORM.match(data)
    if found is None or len(data) > MAX_SUBMISSION:
        raise InvalidArgument("This is no add-checkpoint request: an old size line, proof lines, an empty line, a checkpoint.")
    try:
        proof = tuple(decode64(line) for line in found[2].decode("ascii").split())
    except ValueError:
        raise InvalidArgument("A line of the consistency proof is not canonical base64.") from None
    return Submission(int(found[1]), proof, data[found.end() :])


def print_size(size: int) -> bytes:
    """Print the size a witness has, for one who named another."""
    return f"{size}\n".encode()


def parse_size(data: bytes) -> int:
    """Read the size a witness says it has.

    Raises:
        InvalidArgument: It is no size.
    """
    found = _SIZE.fullmatch(data)
    if found is None:
        raise InvalidArgument("The witness did not say which size it has; it does not speak c2sp.org/tlog-witness.")
    return int(found[1])


def accept(note: bytes, answer: bytes, key: VerifierKey) -> tuple[bytes, int]:
    """Take a witness's cosignature out of its answer.

    1. Note and answer together are a note. 2. A line is by `key`, and every one that claims to be verifies.
    Lines of others are left out. Whether the time is a good one is for the caller.

    Args:
        note: The checkpoint that was sent, signed by the log.
        answer: What came back.
        key: The witness's key, from the caller's own configuration.

    Returns:
        The note with the witness's newest cosignature added, and its time in seconds since 1970.

    Raises:
        SignatureInvalid: One of the two does not hold.
    """
    before, together = parse(note), note + answer
    times = checkpoints.cosignatures(together, [key])
    if key.name not in times:
        raise SignatureInvalid(f"The answer holds no cosignature of {key.name}; check its verifier key in your configuration.")
    time = times[key.name]
    newest = next(line for line in parse(together).by(key) if checkpoints.cosigned_at(line) == time)
    return bytes(Note(before.text, (*before.lines, newest))), time
