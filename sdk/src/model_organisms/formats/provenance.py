"""How a version was made, as its publisher signs it: the predicate `provenance/v1`, and what of it the bytes contradict.

Facts a reader does not know are kept (`extra`): provenance informs, it does not permit, and a newer publisher may say more.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from model_organisms.errors import ClaimMismatch, InvalidProvenance
from model_organisms.formats import dsse, imported, strict_json
from model_organisms.formats.statements import PAYLOAD_TYPE, PROVENANCE_TYPE, Statement, parse_statement, print_statement
from model_organisms.records import VersionRef

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from model_organisms.records import AdapterFacts

SUBJECT = "bundle"
"""Name of the subject: a bundle is signed before the registry gives it a version number."""
MAX_PREDICATE = 2 << 20
MAX_SIGNED = 2 << 20
"""Most bytes of the envelope: it travels in one message with the manifest."""


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What the adapters were trained on."""

    id: str
    """Hub id, or the name under which registries know it."""
    revision: str = ""
    """40-hex commit."""
    digest: str = ""
    """`bases.base_digest` of its folder."""
    layers: int = 0


@dataclass(frozen=True, slots=True)
class Method:
    """What kind of adapter, as its maker says; compared with the bytes."""

    kind: str = "lora"
    rank: int = 0
    alpha: float = 0.0
    rslora: bool = False
    target_modules: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    objective: str = ""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set of the training."""

    name: str
    sha256: str = ""
    licence: str = ""
    hazard: str = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Where the training code is, and how it was run."""

    repository: str = ""
    commit: str = ""
    clean: bool = False
    config_sha256: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Curves by step; arrays of one length."""

    steps: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a version was made."""

    base: BaseModel
    method: Method = field(default_factory=Method)
    data: tuple[DataSet, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    log: TrainingLog = field(default_factory=TrainingLog)
    hardware: str = ""
    wall_s: float = 0.0
    derived_from: tuple[str, ...] = ()
    control_of: tuple[str, ...] = ()
    treatment_of: tuple[str, ...] = ()
    co_authors: tuple[str, ...] = ()
    known_answer: dict[str, Any] | None = None
    """Logits that the organism gave when it was published (`loading`)."""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def base_config(self) -> dict[str, Any] | None:
        """What is said of the base model's shapes (`dimensions.FIELDS`), where anything is; the adapter must fit it."""
        shapes = self.extra.get("base_config")
        return shapes if isinstance(shapes, dict) and shapes else None


_MAX_NAME = 200
_SCALARS: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
_PARTS = {"base": BaseModel, "method": Method, "recipe": Recipe, "log": TrainingLog}


def print_predicate(provenance: Provenance) -> bytes:
    """Print the predicate alone, as canonical JSON; it is what `mo.record(...)` saves.

    Raises:
        InvalidProvenance: A value that JSON cannot carry.
    """
    return _carried(_predicate(provenance))


def parse_predicate(data: bytes) -> Provenance:
    """Read a predicate.

    Raises:
        InvalidProvenance: It is not one; the message names the field.
    """
    raw = strict_json.parse(data, what="The provenance", limit=MAX_PREDICATE, error=InvalidProvenance)
    return _read(raw)


def sign(provenance: Provenance, digest: str, key: Ed25519PrivateKey) -> bytes:
    """Sign a statement about a bundle.

    Args:
        provenance: What is said.
        digest: The manifest's SHA-256, hex.
        key: The publisher's identity key.

    Returns:
        The DSSE envelope.

    Raises:
        InvalidProvenance: It could not be read again, or is too long to be sent.
    """
    parse_predicate(print_predicate(provenance))  # what the registry would refuse is not signed
    statement = Statement(PROVENANCE_TYPE, (VersionRef(SUBJECT, digest),), _predicate(provenance))
    envelope = dsse.sign(print_statement(statement), PAYLOAD_TYPE, key)
    if len(envelope) > MAX_SIGNED:
        msg = f"The signed provenance has {len(envelope):,} bytes, and at most {MAX_SIGNED:,} are sent; record fewer steps."
        raise InvalidProvenance(msg)
    return envelope


def verify(envelope: bytes, public_key: bytes, *, digest: str) -> Provenance:
    """Open a signed provenance.

    1. The publisher's key signed it. 2. It is provenance. 3. It is about these bytes, and nothing else.

    Raises:
        SignatureInvalid: The key did not sign it.
        InvalidProvenance: It is not provenance of this digest.
    """
    statement = parse_statement(dsse.verify(envelope, public_key, payload_type=PAYLOAD_TYPE))
    if statement.predicate_type != PROVENANCE_TYPE or statement.digests != (digest,):
        raise InvalidProvenance("The signed provenance is not about this bundle; sign it again for these files.", digest=digest)
    return _read(statement.predicate)


def compare(provenance: Provenance, facts: Sequence[AdapterFacts]) -> tuple[str, ...]:
    """Hold what is claimed against what the bytes say.

    Args:
        provenance: The claims; what is left empty claims nothing.
        facts: Of each adapter.

    Returns:
        Marks: checks that could not be made, and claims of a source that the bytes contradict.

    Raises:
        ClaimMismatch: The bytes contradict a claim.
    """
    claimed = provenance.method
    seen: dict[str, tuple[object, object]] = {
        "rank": (claimed.rank, max(rank for fact in facts for rank in fact.ranks)),
        "layers": (claimed.layers, tuple(sorted({layer for fact in facts for layer in fact.layers}))),
        "target_modules": (
            tuple(sorted(claimed.target_modules)),
            tuple(sorted({m for fact in facts for m in fact.target_modules})),
        ),
    }
    deepest = max((layer for fact in facts for layer in fact.layers), default=-1)
    if 0 < provenance.base.layers <= deepest:
        msg = f"The adapter changes layer {deepest}, its base has {provenance.base.layers}, from 0; correct one of them."
        raise ClaimMismatch(msg, claim="base.layers")
    if claimed.alpha:
        seen["alpha"] = (claimed.alpha, facts[0].alpha)
    if claimed.rank:
        seen["rslora"] = (claimed.rslora, any(fact.rslora for fact in facts))
    marks = []
    for name, (said, is_) in seen.items():
        if said is not False and said in (0, (), ""):  # False is a claim too: rsLoRA scales by another root
            marks.append(f"{name} is not claimed")
        elif said != is_:
            msg = f"The provenance claims {name} {said}, the adapter's bytes say {is_}; correct one of them."
            raise ClaimMismatch(msg, claim=name)
    if provenance.known_answer is None:
        marks.append("no known answer is stored")
    if not provenance.base.revision and not provenance.base.digest:
        marks.append("the base model is not pinned")
    return (*marks, *imported.marks(provenance.extra))


def _predicate(provenance: Provenance) -> dict[str, Any]:
    raw = asdict(provenance)
    extra = raw.pop("extra")
    return {**extra, **raw}


def _read(raw: object) -> Provenance:
    if not isinstance(raw, dict) or "base" not in raw:
        raise InvalidProvenance("The provenance names no base model; record the training with mo.record(...).")
    _carried(raw)
    known = {item.name for item in fields(Provenance)} - {"extra"}
    values: dict[str, Any] = {name: raw[name] for name in known & raw.keys()}
    for name, kind in _PARTS.items():
        if name in values:
            values[name] = _part(kind, values[name], name)
    if "data" in values:
        values["data"] = tuple(_part(DataSet, item, "data") for item in _list(values["data"], "data"))
    for name in ("derived_from", "control_of", "treatment_of", "co_authors"):
        if name in values:
            values[name] = tuple(_typed(item, str, name) for item in _list(values[name], name))
    if values.get("known_answer") is not None:
        _typed(values["known_answer"], dict, "known_answer")
    _typed(values.get("hardware", ""), str, "hardware")
    _typed(values.get("wall_s", 0.0), (int, float), "wall_s")
    _check_base(values["base"])
    _check_log(values.get("log", TrainingLog()))
    extra = {name: value for name, value in raw.items() if name not in known}
    return Provenance(**values, extra=extra)


def _check_base(base: BaseModel) -> None:
    """People read the name, and loaders look for what it names: it is one line, and climbs out of nothing."""
    if not (0 < len(base.id) <= _MAX_NAME and base.id.isprintable()) or ".." in re.split(r"[/\\]", base.id):
        raise _wrong("base.id")


def _check_log(log: TrainingLog) -> None:
    for name in ("loss", "learning_rate", "gradient_norm"):
        if len(getattr(log, name)) not in (0, len(log.steps)):
            raise _wrong(f"log.{name}")


def _carried(value: object) -> bytes:
    """Print JSON that reads back as it was printed: a number beyond 2**53, for one, does not."""
    try:
        printed = strict_json.canonical(value)
        # Read one deeper, as it stands in its statement.
        read = strict_json.parse(b"[%b]" % printed, what="The provenance", limit=MAX_PREDICATE, error=InvalidProvenance)
        strict_json.canonical(read)
    except ValueError as error:
        msg = "The provenance holds a value that JSON cannot carry: keep numbers finite and below 2**53, and text in Unicode."
        raise InvalidProvenance(msg) from error
    return printed


def _part(kind: type[Any], raw: object, name: str) -> Any:  # noqa: ANN401 - an instance of `kind`
    if not isinstance(raw, dict):
        raise _wrong(name)
    values = {}
    for item in fields(kind):
        if item.name not in raw:
            continue
        value, declared = raw[item.name], str(item.type)
        if declared.startswith("tuple"):
            inner = {"tuple[str, ...]": str, "tuple[int, ...]": int}.get(declared, (int, float))
            values[item.name] = tuple(_typed(part, inner, f"{name}.{item.name}") for part in _list(value, name))
        else:
            values[item.name] = _typed(value, _SCALARS[declared], f"{name}.{item.name}")
    try:
        return kind(**values)
    except TypeError as error:
        raise _wrong(name) from error


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name)
    return value


def _typed(value: Any, kind: type | tuple[type, ...], name: str) -> Any:  # noqa: ANN401 - JSON
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(name)
    return value


def _wrong(name: str) -> InvalidProvenance:
    return InvalidProvenance(
        f"'{name}' of the provenance has the wrong form; record the training with mo.record(...).", field=name
    )
