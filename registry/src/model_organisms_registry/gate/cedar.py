"""The policy set, read and parsed once, and one decision over it; the only module that speaks to Cedar.

Steps of reading, each of which can refuse the folder: 1. every file is there, is text, and holds no policy too long to be parsed,
2. the schema and `never.cedar` are those that were shipped, 3. every policy has an `@id` of its own, every forbid a refusal and
an advice, and files that were not shipped only forbid, 4. Cedar finds the set valid under the schema.

Without a schema Cedar skips a `forbid` that errors and answers Allow. So the schema is always passed, and whatever is not a
clean Allow is a denial.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cedarpy
from cedarpy import pst
from model_organisms.errors import (
    BY_REASON,
    ConfigurationInvalid,
    Denied,
    JailMissing,
    ModelOrganismsError,
    NotFound,
    Unavailable,
)

from model_organisms_registry.domain.permits import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = "schema.cedarschema"
NEVER = "never.cedar"
SHIPPED = (NEVER, "organisms.cedar", "access.cedar", "motions.cedar", "sandbox.cedar", "games.cedar", "audit.cedar")
"""In the order in which they speak; files of the deployment's own come after them, by name."""

FAULT = "gate-fault"
"""Stands for a policy id where Cedar could not evaluate the call."""

_REFUSALS = (Denied, NotFound, JailMissing, Unavailable)
_HERE = Path(__file__).resolve()
_SIZE_LIMIT = 1 << 20
_FILES_LIMIT = 64
_TOKENS_LIMIT = 500
"""Words and signs of one policy. Cedar's parser recurses, and a few thousand of them would end the process and not the parse."""
_TOKEN = re.compile(r'//[^\n\r]*|"(?:\\.|[^"\\])*"|\w+|\S')


@dataclass(frozen=True, slots=True)
class Decision:
    """What Cedar said, and why.

    Invariants: allowed only if at least one policy permits, none forbids, and nothing went wrong in evaluating any.
    """

    allowed: bool
    reasons: tuple[str, ...]
    """Ids of the deciding policies in the order of the set; none where no policy permits; `FAULT` where evaluation failed."""
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Forbid:
    """What a forbidding policy says to the caller."""

    refusal: type[ModelOrganismsError]
    advice: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy as it was parsed; two are equal if they say the same, however they are set out."""

    file: str
    effect: str
    """`permit` or `forbid`."""
    said: Any
    """Scope, conditions and annotations."""


class PolicySet:
    """A parsed policy set with its schema.

    Args:
        texts: File name to text, in the order in which they speak.
        schema: Text of the schema.

    Raises:
        ConfigurationInvalid: Something in it does not parse, is not valid under the schema, or lacks an annotation.
    """

    def __init__(self, texts: dict[str, str], schema: str) -> None:
        """Parse everything once: a decision costs a twentieth of a parse."""
        self.texts = texts
        for name, text in texts.items():
            _bounded(text, name)
        joined = "\n".join(texts.values())
        self._schema = _parsed(cedarpy.Schema.from_str, schema, SCHEMA)
        self.order, self.forbids, self.policies = _annotations(texts)
        problems = cedarpy.validate_policies(joined, self._schema)
        if not problems.validation_passed:
            told = "; ".join(str(error.error) for error in problems.errors)[:2000]
            raise ConfigurationInvalid(f"The policies do not fit the schema: {told}. Correct them; policies/README.md says how.")
        self._whole = _parsed(cedarpy.PolicySet.from_str, joined, "the policy set")
        self._by_action = _by_action(_parsed(cedarpy.policies_to_pst, joined, "the policy set"))
        self.digest = _digest({SCHEMA: schema, **texts})

    @classmethod
    def read(cls, folder: Path | None = None) -> PolicySet:
        """Read a deployment's folder; by default the shipped one.

        Raises:
            ConfigurationInvalid: A file is missing, or the schema or `never.cedar` is not the one that was shipped.
        """
        at = folder or shipped_folder()
        own = sorted(path.name for path in at.glob("*.cedar") if path.name not in SHIPPED)
        if len(own) > _FILES_LIMIT:
            raise ConfigurationInvalid(f"{at} has {len(own)} policy files of its own; write them into {_FILES_LIMIT} at most.")
        # Each file is read once: what is checked is what is parsed, whatever happens to the folder meanwhile.
        texts = {name: _text(at / name) for name in (SCHEMA, *SHIPPED, *own)}
        for name in (SCHEMA, NEVER):
            if texts[name] != _text(shipped_folder() / name):
                msg = f"{at / name} is not the file that was shipped; copy it back, and be stricter in a file of yours."
                raise ConfigurationInvalid(msg)
        schema = texts.pop(SCHEMA)
        return cls(texts, schema)

    @classmethod
    def restored(cls, texts: Mapping[str, str]) -> PolicySet:
        """Make a set from what `own` gave, with the schema, `never.cedar` and whatever else a set must have as they are now.

        Raises:
            ConfigurationInvalid: It does not fit them.
        """
        own = sorted(name for name in texts if name not in SHIPPED)
        kept = {
            name: texts[name] if name in texts and name != NEVER else _text(shipped_folder() / name) for name in (*SHIPPED, *own)
        }
        return cls(kept, _text(shipped_folder() / SCHEMA))

    @property
    def own(self) -> dict[str, str]:
        """Its files, but for those that come with the program in any case."""
        return {name: text for name, text in self.texts.items() if name != NEVER}

    def decide(self, request: dict[str, Any], entities: str, *, whole: bool = False) -> Decision:
        """Ask Cedar once.

        Args:
            request: Principal, action, resource and context, as `gate/question.py` builds them.
            entities: The entities that it names, JSON text.
            whole: Over all policies, and not only those whose scope can match the action: the same answer, a quarter slower.

        Returns:
            The decision; a denial for anything but a clean Allow.
        """
        policies = self._whole if whole else self._by_action.get(request["action"]["id"], self._whole)
        try:
            result = cedarpy.is_authorized(request, policies, entities, self._schema)
            diagnostics, answer = result.diagnostics, result.decision
            ids = diagnostics.id_annotations_by_reason
            found = [ids.get(reason, FAULT) for reason in diagnostics.reasons]
            errors = tuple(diagnostics.errors)
        # Whatever the engine does, a caller gets an answer, and the answer is no.
        except Exception as error:  # noqa: BLE001
            return Decision(allowed=False, reasons=(FAULT,), errors=(f"{type(error).__name__}: {error}",))
        allowed = answer is cedarpy.Decision.Allow
        if errors or FAULT in found or (allowed and not found) or answer is cedarpy.Decision.NoDecision:
            return Decision(allowed=False, reasons=(FAULT,), errors=errors)
        if len(found) > 1:
            found.sort(key=self.order.__getitem__)
        return Decision(allowed=allowed, reasons=tuple(found))

    def allows(self, request: dict[str, Any], entities: str) -> bool:
        """Whether a call is allowed; of what `decide` says, the answer alone."""
        return self.decide(request, entities).allowed

    def speaking(self, action: Action) -> dict[str, Policy]:
        """Policies that can have a say on an action, by id."""
        others = {str(other) for other in Action} - {str(action)}
        return {name: policy for name, policy in self.policies.items() if not _named(policy.said.action) <= others}


def shipped_folder() -> Path:
    """Where the shipped policies lie: inside the installed package, or at the top of the repository it is developed in."""
    for folder in (_HERE.parents[1] / "policies", _HERE.parents[4] / "policies"):
        if (folder / SCHEMA).is_file():
            return folder
    raise ConfigurationInvalid("The policies were not installed with the registry; install its wheel again.")


def _by_action(nodes: pst.PolicySet) -> dict[str, Any]:
    """For each action the policies whose scope can match it: left out is what names other actions only, and no group."""
    actions = {str(action) for action in Action}
    sets = {}
    for action in actions:
        others = actions - {action}
        kept = {name: policy for name, policy in nodes.static_policies.items() if not _named(policy.action) <= others}
        chosen = pst.PolicySet(static_policies=kept, templates={}, template_links=[])
        sets[action] = cedarpy.PolicySet.from_pst(chosen)
    return sets


def _named(scope: object) -> set[str]:
    """Ids of the actions a scope names; a name that no action has where it names none, so that it is a subset of nothing."""
    if isinstance(scope, pst.ActionEq):
        return {scope.entity.id}
    if isinstance(scope, pst.ActionIn):
        return {entity.id for entity in scope.entities}
    return {"any"}


def _annotations(texts: dict[str, str]) -> tuple[dict[str, int], dict[str, Forbid], dict[str, Policy]]:
    order: dict[str, int] = {}
    forbids: dict[str, Forbid] = {}
    policies: dict[str, Policy] = {}
    for name, text in texts.items():
        nodes = _parsed(cedarpy.policies_to_pst, text, name)
        if nodes.templates:
            raise ConfigurationInvalid(f"{name} holds a template; write the policy out.")
        # Cedar names policies by position; the map is not in that order.
        for _, policy in sorted(nodes.static_policies.items(), key=lambda item: int(item[0].removeprefix("policy"))):
            identifier = policy.annotations.get("id", "")
            if not identifier or identifier in order or identifier == FAULT:
                raise ConfigurationInvalid(f"A policy in {name} has no @id(\"...\") of its own ('{identifier}'); give it one.")
            order[identifier] = len(order)
            policies[identifier] = Policy(name, str(policy.effect), replace(policy, id=""))
            if str(policy.effect) == "forbid":
                forbids[identifier] = _forbid(policy.annotations, identifier)
            elif name not in SHIPPED or name == NEVER:
                raise ConfigurationInvalid(f"'{identifier}' in {name} permits; a file of your own may only forbid.")
    return order, forbids, policies


def _forbid(annotations: dict[str, str], identifier: str) -> Forbid:
    refusal = BY_REASON.get(annotations.get("refusal", "DENIED"))
    advice = annotations.get("advice", "")
    if refusal is None or not issubclass(refusal, _REFUSALS) or not advice:
        msg = f"'{identifier}' needs an @advice that says what to do, and its @refusal, if any, is a reason such as DENIED."
        raise ConfigurationInvalid(msg)
    return Forbid(refusal, advice)


def _parsed(parse: Any, text: str, what: str) -> Any:  # noqa: ANN401 - Cedar's handles are opaque
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationInvalid(f"{what} does not parse: {error}") from error


def _bounded(text: str, what: str) -> None:
    """Refuse a policy that is too long to be parsed."""
    length = 0
    for token in _TOKEN.finditer(text):
        length = 0 if token[0] == ";" else length + 1
        if length > _TOKENS_LIMIT:
            raise ConfigurationInvalid(f"A policy in {what} has more than {_TOKENS_LIMIT} words and signs; write several.")


def _text(path: Path) -> str:
    """Read a file that is one: links are followed, but nothing is waited for, and nothing endless is read."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationInvalid(f"{path} is no file; copy the shipped policies there.")
            data = file.read(_SIZE_LIMIT + 1)
        if len(data) > _SIZE_LIMIT:
            raise ConfigurationInvalid(f"{path} is larger than {_SIZE_LIMIT} bytes; that is no policy.")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationInvalid(f"{path} cannot be read ({error}); copy the shipped policies there.") from error


def _digest(texts: dict[str, str]) -> str:
    """SHA-256 over `name NUL sha256(text) LF`, by name: the same files, the same digest, in whatever order they were read."""
    lines = (f"{name}\0{sha256(text.encode()).hexdigest()}\n" for name, text in sorted(texts.items()))
    return sha256("".join(lines).encode()).hexdigest()
