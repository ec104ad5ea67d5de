"""Every parser that strangers' bytes reach, with what must hold for any bytes: a typed error, or a value that prints back.

A target raises only what is wrong: an error of no kind, or a value that prints as something else than it was read from.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError, Message
from model_organisms import errors, names, records, wire
from model_organisms.cells import frames
from model_organisms.formats import (
    capsule,
    checkpoint,
    conditions,
    config,
    content,
    dsse,
    enrolment,
    entry,
    manifest,
    motions,
    note,
    paths,
    patterns,
    provenance,
    receipt,
    statements,
    strict_json,
    tensors,
    tiles,
    witness,
)
from model_organisms.formats.capsule import MAGIC, PAYLOAD_TYPE
from model_organisms.formats.note import COSIGNATURE, SigningKey
from model_organisms.formats.streaming import Layout, Receiver
from model_organisms.v1 import access_pb2, organisms_pb2, records_pb2, sandbox_pb2
from model_organisms_registry.config import AccountRule, Issuer
from model_organisms_registry.domain import oidc
from model_organisms_registry.ledger import memory
from model_organisms_registry.storage import paging

from tests.fuzz.elsewhere import catalogue, curves, hub_list, hub_source, questions, taxonomy, testbed
from tests.support.capsules import RELEASE, open_capsule

if TYPE_CHECKING:
    from collections.abc import Callable

    Target = Callable[[bytes], None]

ORIGIN = "ledger.example.org"
KEY = SigningKey(ORIGIN, bytes(range(32)))
WITNESS = SigningKey("witness.example.org", bytes(range(1, 33)), COSIGNATURE)
LISTING = ("organisms", "users/ada")
ISSUER = Issuer("https://a.example", client_id="mo", accounts=(AccountRule("groups", "detection", "lab"),))
LIMIT = 64 << 10
"""Longer inputs find nothing that shorter ones do not: every size limit is below it, or is checked before anything is read."""


def note_(data: bytes) -> None:
    """A signed note."""
    assert bytes(note.parse(data)) == data
    note.verify(data, KEY.verifier)


def vkey(data: bytes) -> None:
    """A verifier key, or a signing key."""
    text = _text(data)
    if text.startswith("PRIVATE"):
        assert note.parse_skey(text).secret_text() == text
    else:
        assert str(note.parse_vkey(text)) == text


def checkpoint_(data: bytes) -> None:
    """A checkpoint, alone and signed by a key that is known."""
    for whole in (data, bytes(note.sign(_text(data) + "\n", KEY)) if b"\0" not in data else data):
        try:
            read = checkpoint.parse_unverified(whole)
            assert note.parse(whole).text.startswith(checkpoint.text(read.origin, read.size, read.root))
            checkpoint.cosignatures(whole, [WITNESS.verifier])
            checkpoint.verified(whole, KEY.verifier, origin=read.origin)
        except errors.ModelOrganismsError:
            continue


def receipt_(data: bytes) -> None:
    """A receipt with its checkpoint."""
    read = receipt.parse(data)
    assert receipt.text(read) == data
    receipt.verify(read, str(KEY.verifier), origin=ORIGIN)


def entry_(data: bytes) -> None:
    """A ledger entry."""
    assert entry.encode(entry.parse(data)) == data


def bundle(data: bytes) -> None:
    """An entry bundle or a tile, whose width stands in front here."""
    width = 1 + data[0] if data else 1
    body = data[1:]
    try:
        assert tiles.encode_entries(tiles.decode_entries(body, width=width)) == body
    except errors.VerificationFailed:
        assert tiles.encode_hashes(tiles.decode_hashes(body, width=width)) == body


def tile_path(data: bytes) -> None:
    """Where a tile is kept."""
    text = _text(data)
    assert tiles.path(tiles.parse_path(text)) == text


def manifest_(data: bytes) -> None:
    """A manifest, or a packed bundle."""
    if data[:1] == b"[":
        read = manifest.parse(data)
        assert read.data == data
        assert manifest.of_files(read.files) == read
    else:
        read, files = manifest.unpack(data)
        assert b"".join(manifest.pack(read.data, files)) == data


def json_(data: bytes) -> None:
    """JSON as strangers write it."""
    value = strict_json.parse(data, what="It", limit=LIMIT, error=errors.InvalidArgument)
    if not all(map(strict_json.safe_number, _numbers(value))):  # RFC 8785 prints no such number so that it reads back
        return
    printed = strict_json.canonical(value)
    again = strict_json.parse(printed, what="It", limit=1 << 30, error=errors.InvalidArgument)
    assert (strict_json.canonical(again), again) == (printed, value)


def dsse_(data: bytes) -> None:
    """A DSSE envelope."""
    kind, payload, _ = dsse._parse(data)
    again = dsse.sign(payload, kind, RELEASE)
    assert dsse.verify(again, RELEASE.public_key().public_bytes_raw(), payload_type=kind) == payload
    dsse.verify(data, RELEASE.public_key().public_bytes_raw(), payload_type=kind)


def provenance_(data: bytes) -> None:
    """A predicate of provenance."""
    read = provenance.parse_predicate(data)
    printed = provenance.print_predicate(read)
    assert provenance.print_predicate(provenance.parse_predicate(printed)) == printed


def statement(data: bytes) -> None:
    """An in-toto statement."""
    read = statements.parse_statement(data)
    printed = statements.print_statement(read)
    assert statements.print_statement(statements.parse_statement(printed)) == printed


def review(data: bytes) -> None:
    """A reviewer's statement."""
    assert statements.print_review(statements.parse_review(data)) == data


def vote(data: bytes) -> None:
    """A statement on a motion."""
    assert motions.print_vote(motions.parse_vote(data)) == data


def condition(data: bytes) -> None:
    """A condition of use, as it is typed."""
    read = conditions.parse_condition(_text(data))
    assert conditions.parse_condition(conditions.print_condition(read)) == read


def submission(data: bytes) -> None:
    """What a log sends to a witness, and what comes back."""
    read = witness.parse_submission(data)
    assert witness.print_submission(read) == data
    witness.accept(read.note, b"", WITNESS.verifier)


def signer_memory(data: bytes) -> None:
    """What the ledger's signer remembers, after a disk had its way with it."""
    size, root, slot = memory.read_head(data, origin=ORIGIN)
    assert size >= 0
    assert (len(root), slot in {0, 1}) == (32, True)


def tensors_(data: bytes) -> None:
    """A safetensors file."""
    for tensor in tensors.read_tensors(data).tensors.values():
        assert tensor.array().nbytes == len(tensor.data)


def adapter_config(data: bytes) -> None:
    """An adapter's configuration."""
    read = config.read_config(data)
    assert read.rank >= 1


def pattern(data: bytes) -> None:
    """A pattern of module names, and a name to hold against it."""
    text, _, name = _text(data).partition("\n")
    budget = patterns.StepBudget(100_000)
    for read in (patterns.whole, patterns.suffix):
        read(text).matches(name[:200], budget)


def content_(data: bytes) -> None:
    """A file of a bundle, its path in the first line."""
    path, _, body = data.partition(b"\n")
    where = paths.check_path(_text(path))
    content.check_content(where, body, paths.kind_of(where))


def capsule_head(data: bytes) -> None:
    """A capsule's head, as it comes and as a header that the true registry signed."""
    signature = RELEASE.sign(dsse.pae(data, PAYLOAD_TYPE))
    for head in (data, MAGIC + len(data).to_bytes(4, "big") + data + signature + bytes(1200)):
        try:
            open_capsule(head)
        except errors.CapsuleInvalid:
            continue
        raise AssertionError("a capsule opened that nobody sealed")


def capsule_header(data: bytes) -> None:
    """The header inside, whose errors `open_head` makes into one."""
    try:
        assert capsule._print(capsule._parse(data)) == data
    except ValueError:
        return


def streaming(data: bytes) -> None:
    """A sealed stream, cut as its first bytes say."""
    layout = Layout.of_sealed(len(data))
    receiver = Receiver(bytes(32), b"", bytearray(layout.plain_size))
    step = 1 + (data[0] if data else 0)
    for start in range(0, len(data), step * 64):
        receiver.feed(data[start : start + step * 64])
    receiver.finish()
    raise AssertionError("a stream opened that nobody sealed")


def ticket(data: bytes) -> None:
    """An enrolment ticket, as it was pasted."""
    read = enrolment.Ticket.parse(_text(data))
    assert enrolment.Ticket.parse(str(read)) == read


def token(data: bytes) -> None:
    """A provider's token as it was sent; or in two lines header and claims of one whose signature held."""
    head, _, claims = data.partition(b"\n")
    sent = ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in (head, claims, b"signed")) if claims else _text(data)
    read = oidc.read(sent)
    oidc.check(read, oidc.issuer_of(read, [ISSUER]), nonce="n" * 43, now=datetime(2026, 5, 4, 12, tzinfo=UTC))
    made = oidc.newcomer(read, ISSUER)
    assert names.check("user", made.name) == made.name
    assert (made.roles, made.organisation) == ({records.Role.RESEARCHER}, "organisations/lab")
    assert made.display_name.isprintable()


def name(data: bytes) -> None:
    """Names of all kinds."""
    text = _text(data)
    for kind in names.PATTERNS:
        try:
            assert names.check(kind, text) == text
        except errors.InvalidName:
            continue
    assert str(names.parse_version(text)) == text


def page_token(data: bytes) -> None:
    """Page tokens of both kinds of listing."""
    token = _text(data)
    for kind in (str, int):
        try:
            after = paging.read_token(token, listing=LISTING, kind=kind)
        except errors.InvalidArgument:
            continue
        assert paging.write_token(after, listing=LISTING) == token


def frame(data: bytes) -> None:
    """A frame of a cell."""
    read = frames.decode(data)
    printed = frames.encode(read)
    assert frames.encode(frames.decode(printed)) == printed


MESSAGES: tuple[tuple[type[Message], type[Any]], ...] = (
    (organisms_pb2.Organism, records.Organism),
    (organisms_pb2.Version, records.Version),
    (organisms_pb2.Attestation, records.Attestation),
    (access_pb2.AccessRequest, records.Request),
    (access_pb2.Grant, records.Grant),
    (sandbox_pb2.Session, records.Session),
    (records_pb2.SampleReceipt, records.SampleReceipt),
    (records_pb2.Receipt, records.Receipt),
    (records_pb2.User, records.User),
)


def message(data: bytes) -> None:
    """What a lying registry answers: a record, or an error; which, the first byte says."""
    number, body = (data[0], data[1:]) if data else (0, b"")
    if number >= len(MESSAGES):
        error = wire.from_status(body, code="INTERNAL", message=body.decode("utf-8", "replace"))
        wire.to_status(error)
        return
    kind, record = MESSAGES[number]
    try:
        read = kind.FromString(body)
    except DecodeError:
        return
    value = wire.from_message(read, record)
    assert wire.from_message(wire.to_message(value, kind), record) == value or _has_nan(value)


_ALL = (
    *(note_, vkey, checkpoint_, receipt_, entry_, bundle, tile_path),
    *(json_, dsse_, provenance_, statement, review, vote, condition),
    *(submission, signer_memory),
    *(manifest_, tensors_, adapter_config, pattern, content_),
    *(hub_source, hub_list, catalogue, taxonomy, curves, questions, testbed),
    *(capsule_head, capsule_header, streaming, ticket, token, name, page_token, frame, message),
)
TARGETS: dict[str, Target] = {target.__name__.rstrip("_"): target for target in _ALL}
"""Every target by its name, which is also the name of its folder in `corpus/`."""


def run(target: str, data: bytes) -> None:
    """Give a target some bytes; errors of the tree are the answer that was wanted."""
    try:
        TARGETS[target](data[:LIMIT])
    except errors.ModelOrganismsError:
        return


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _numbers(value: object) -> list[object]:
    if isinstance(value, dict):
        return [number for inner in value.values() for number in _numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in _numbers(inner)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def _has_nan(value: object) -> bool:
    return "nan" in repr(value)
