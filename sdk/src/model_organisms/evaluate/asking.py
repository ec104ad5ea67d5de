"""Translates between Inspect's words and ours: messages, settings and answers; for the two providers, and for readers of logs.

What an organism cannot be asked is refused by its name: an evaluation whose settings were dropped in silence measures something
else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageTool,
    ContentText,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    TopLogprob,
)

from model_organisms.errors import ConfigurationInvalid, InvalidArgument
from model_organisms.records import Message, SampleReceipt, SamplingParameters, Steer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from inspect_ai.model import ChatMessage, GenerateConfig
    from inspect_ai.tool import ToolInfo
    from inspect_ai.util import Store

    from model_organisms.records import TokenScore

MAX_TOKENS = 512
"""Longest answer where a task does not say."""
UNLIKELY = -9999.0
"""Log-probability of a token that is not among those whose scores were told, as OpenAI's interface has it too."""

ANSWERED = "answered"
"""Where a sample's store keeps what providers say of its answers."""

_OWN = frozenset({"max_tokens", "temperature", "top_p", "top_k", "stop_seqs", "seed", "logprobs", "top_logprobs"})
"""Settings that say how an answer is drawn and told."""
_INSPECTS = frozenset(
    {
        *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections", "adaptive_connections"),
        *("system_message", "max_tool_output", "cache", "cache_prompt", "fail_on_refusal", "reasoning_history"),
    }
)
"""Settings that Inspect obeys by itself, or that change nothing here: there are no tools and no marked reasoning."""
_NEUTRAL: dict[str, object] = {
    "num_choices": 1,
    "best_of": 1,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "batch": False,
    "internal_tools": False,
    "reasoning_effort": "none",
}
"""Values of other settings that ask for nothing."""
_STOPS: dict[str, Literal["stop", "max_tokens", "unknown"]] = {"stop": "stop", "length": "max_tokens"}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    messages: tuple[Message, ...]
    parameters: SamplingParameters
    """The seed as the task gave it."""
    top: int | None = None
    """Of how many tokens scores are to be told at each position, beside the drawn one's; None: no scores."""


def asked(
    messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig, *, scale: float | None = None
) -> Asked:
    """Translate a request.

    Args:
        messages: The conversation, as Inspect has it.
        tools: Tools that the model may call; there must be none.
        config: Settings.
        scale: Dose of the organism, as the model's arguments say.

    Raises:
        InvalidArgument: It asks for what an organism here does not do; `details["field"]` names it.
    """
    if tools:
        raise InvalidArgument(f"Organisms call no tools ('{tools[0].name}'); use a task without.", field="tools")
    _check_settings(config)
    parameters = SamplingParameters(
        max_tokens=MAX_TOKENS if config.max_tokens is None else config.max_tokens,
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=config.top_k or 0,
        stop=tuple(config.stop_seqs or ()),
        seed=config.seed,
        scale=scale,
    )
    wanted = bool(config.logprobs) or config.top_logprobs is not None
    return Asked(tuple(_message(turn) for turn in messages), parameters, (config.top_logprobs or 0) if wanted else None)


def keep(store: Store, output: ModelOutput) -> None:
    """Keep in a sample's store what a provider says of an answer: of several, Inspect's sample has the last one's alone."""
    if output.metadata:
        store.set(ANSWERED, [*store.get(ANSWERED, []), dict(output.metadata)])


def output(
    model: str,
    text: str,
    finish_reason: str,
    *,
    tokens: int,
    prompt_tokens: int = 0,
    scores: Sequence[Logprob] | None = None,
    metadata: dict[str, Any],
) -> ModelOutput:
    """Translate an answer.

    Args:
        model: Who answered.
        text: What it said.
        finish_reason: As a session or an engine tells it.
        tokens: Tokens drawn.
        prompt_tokens: Tokens of the conversation; 0 where nobody told.
        scores: One a token.
        metadata: What the log shall keep with it.
    """
    choice = ChatCompletionChoice(
        message=ChatMessageAssistant(content=text, model=model, source="generate"),
        stop_reason=_STOPS.get(finish_reason, "unknown"),
        logprobs=None if scores is None else Logprobs(content=list(scores)),
    )
    usage = ModelUsage(input_tokens=prompt_tokens, output_tokens=tokens, total_tokens=prompt_tokens + tokens)
    return ModelOutput(model=model, choices=[choice], usage=usage, metadata=metadata)


def logprob(text: str, best: Sequence[TokenScore], *, top: int, drawn: float | None = None) -> Logprob:
    """Translate the scores of one position.

    Args:
        text: The token drawn there, as text.
        best: Scores of the likeliest tokens, best first.
        top: How many of them to tell.
        drawn: Score of the drawn token; where absent it is looked for by its text, and is `UNLIKELY` if it is not there.
    """
    own = drawn if drawn is not None else next((score.logprob for score in best if score.text == text), UNLIKELY)
    told = [TopLogprob(token=score.text, logprob=score.logprob) for score in best[:top]]
    return Logprob(token=text, logprob=own, top_logprobs=told or None)


def print_receipt(receipt: SampleReceipt) -> dict[str, Any]:
    """Write a receipt as an answer's metadata in a log has it: `output.metadata["receipt"]`; the seed, of 63 bits, as text."""
    said = asdict(receipt)
    said["adapter_digests"] = list(receipt.adapter_digests)
    parameters = said["parameters"]
    parameters |= {"stop": list(receipt.parameters.stop), "steer": [asdict(steer) for steer in receipt.parameters.steer]}
    parameters["seed"] = None if receipt.parameters.seed is None else str(receipt.parameters.seed)
    return said


def parse_receipt(said: Mapping[str, Any]) -> SampleReceipt:
    """Read a receipt back from a log, to be verified: `formats.sampled.receipt_digest` is what the ledger's entry says of it.

    Raises:
        InvalidArgument: It is none.
    """
    try:
        parameters = dict(said["parameters"])
        seed = parameters["seed"]
        parameters |= {
            "stop": tuple(parameters["stop"]),
            "steer": tuple(Steer(**steer) for steer in parameters["steer"]),
            "seed": None if seed is None else int(seed),
        }
        told = dict(said) | {"parameters": SamplingParameters(**parameters), "adapter_digests": tuple(said["adapter_digests"])}
        return SampleReceipt(**told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument("This is not a receipt from a log; give `output.metadata['receipt']`.", field="receipt") from error


def refuse_unknown(arguments: Mapping[str, object], base_url: str | None, *, known: str) -> None:
    """Refuse model arguments that mean nothing to a provider.

    Raises:
        ConfigurationInvalid: There are some.
    """
    unknown = [*sorted(arguments), *(["base_url"] if base_url else [])]
    if unknown:
        raise ConfigurationInvalid(f"This model takes no argument '{unknown[0]}'; it takes {known}.", field=unknown[0])


def _check_settings(config: GenerateConfig) -> None:
    for name, value in config.model_dump(exclude_none=True).items():
        if name not in _OWN | _INSPECTS and not (name in _NEUTRAL and value == _NEUTRAL[name]):
            raise InvalidArgument(f"Organisms know no setting '{name}'; leave it out of the task or the command.", field=name)


def _message(turn: ChatMessage) -> Message:
    if isinstance(turn, ChatMessageTool) or getattr(turn, "tool_calls", None):
        raise InvalidArgument("Organisms call no tools, and a message of a tool is in this conversation.", field="tools")
    if isinstance(turn.content, str):
        return Message(turn.role, turn.content)
    other = [part.type for part in turn.content if not isinstance(part, ContentText)]
    if other:
        raise InvalidArgument(f"Organisms read text alone, and a message has a part of type '{other[0]}'.", field=other[0])
    return Message(turn.role, "\n".join(part.text for part in turn.content if isinstance(part, ContentText)))
