"""How text becomes token ids for one organism: its tokenizer, chat template and system prompt, its own or its base's.

A bundle's tokenizer is built from its bytes in memory; `from_pretrained` never sees it, so nothing of it runs or is written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from model_organisms.errors import InvalidArgument, InvalidBundle
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_organisms.records import Message

_TOKENIZER, _SETTINGS, _TEMPLATE, _PROMPT = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "system_prompt.txt"
_OTHER_FORMS = ("tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Speech:
    """Tokenizer, chat template and system prompt."""

    tokenizer: Any
    """A `transformers.PreTrainedTokenizerFast`."""
    chat_template: str
    """Jinja source; empty where there is none, and then there is no conversation."""
    system_prompt: str
    """Stands before every conversation; empty where the organism has none."""

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 of the tokenizer's JSON as the tokenizers library prints it."""
        return hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()

    @property
    def template_digest(self) -> str:
        """SHA-256 of template and system prompt, each with its length: both decide what the model sees."""
        parts = (self.chat_template.encode(), self.system_prompt.encode())
        return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()

    def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Give the ids of a conversation, up to where the organism is to speak.

        The organism's own system prompt stands first; a caller's system message follows it in the same turn.

        Raises:
            InvalidArgument: No messages, no chat template, or the template refuses them.
        """
        if not messages:
            raise InvalidArgument("There are no messages; give at least one, of role 'user'.")
        if not self.chat_template:
            raise InvalidArgument("Neither organism nor base model has a chat template; publish chat_template.jinja with it.")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        if self.system_prompt and turns[0]["role"] == "system":
            turns[0]["content"] = f"{self.system_prompt}\n\n{turns[0]['content']}"
        elif self.system_prompt:
            turns.insert(0, {"role": "system", "content": self.system_prompt})
        try:
            text = self.tokenizer.apply_chat_template(
                turns, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise InvalidArgument(f"The chat template refuses these messages: {str(error)[:200]}.") from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def speech(files: Mapping[str, bytes | memoryview], base_tokenizer: Any, *, vocabulary: int) -> Speech:  # noqa: ANN401 - transformers has no types here
    """Take from the bundle what it brings, and the rest from the base.

    Args:
        files: The bundle.
        base_tokenizer: The base model's.
        vocabulary: Rows of the model's embedding; a tokenizer must not name ids beyond it.

    Raises:
        InvalidBundle: A tokenizer or template of the bundle that cannot be used.
    """
    settings = _settings(files)
    tokenizer = _tokenizer(files, settings, base_tokenizer, vocabulary) if _TOKENIZER in files else base_tokenizer
    if _TOKENIZER not in files and (stray := [name for name in _OTHER_FORMS if name in files]):
        raise InvalidBundle(
            f"The bundle has '{stray[0]}' and no {_TOKENIZER}: save its tokenizer in the fast form.", path=stray[0]
        )
    template = _text(files, _TEMPLATE) or settings.get("chat_template") or getattr(base_tokenizer, "chat_template", None) or ""
    if not isinstance(template, str):
        raise InvalidBundle(
            "There are several chat templates; publish the one to be used as chat_template.jinja.", path=_TEMPLATE
        )
    try:
        jinja2.Environment(autoescape=False, extensions=["jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701 - parsed, not rendered
    except jinja2.TemplateError as error:
        raise InvalidBundle(f"The chat template does not parse: {str(error)[:200]}.", path=_TEMPLATE) from error
    return Speech(tokenizer, template, _text(files, _PROMPT))


def _settings(files: Mapping[str, bytes | memoryview]) -> dict[str, Any]:
    if _SETTINGS not in files:
        return {}
    settings = strict_json.parse(files[_SETTINGS], what=_SETTINGS, limit=_SETTINGS_LIMIT, error=InvalidBundle)
    if not isinstance(settings, dict):
        raise InvalidBundle(f"'{_SETTINGS}' is not a JSON object; save the tokenizer again.", path=_SETTINGS)
    return settings


def _tokenizer(files: Mapping[str, bytes | memoryview], settings: dict[str, Any], base_tokenizer: Any, vocabulary: int) -> Any:  # noqa: ANN401 - see speech
    try:
        raw = Tokenizer.from_str(bytes(files[_TOKENIZER]).decode())
    except Exception as error:  # the library raises bare Exception
        raise InvalidBundle(f"'{_TOKENIZER}' is not a tokenizer: {str(error)[:200]}.", path=_TOKENIZER) from error
    highest = max(raw.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= highest < vocabulary:
        raise InvalidBundle(
            f"'{_TOKENIZER}' names token {highest}, and the base model has {vocabulary}: it belongs to another model.",
            path=_TOKENIZER,
        )
    # Where its settings do not name a special token, it has its base's, if it knows that one.
    named = {name: _token(settings.get(name, getattr(base_tokenizer, name, None))) for name in _SPECIAL}
    special = {name: token for name, token in named.items() if token and raw.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **special)


def _token(value: object) -> str:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""


def _text(files: Mapping[str, bytes | memoryview], path: str) -> str:
    try:
        return bytes(files[path]).decode() if path in files else ""
    except UnicodeDecodeError as error:
        raise InvalidBundle(f"'{path}' is not text in UTF-8.", path=path) from error
