"""Inspect's model `mo`: an organism sampled in a session at a registry; `models.py` registers it, nobody else imports it.

    inspect eval TASK --model mo/organisms/NAME/versions/3 -M purpose=detection-research
    inspect eval TASK --model mo/games/ID/aliases/1       # blind, by a player who has joined

Inspect asks many things at once; they go to one session, whose cell answers them in one batch. The session opens with the first
question and ends with Inspect's run, whatever ends that. A budget that has ended is told as a limit, which ends samples and is
not tried again. Each answer's receipt is in the log (`output.metadata["receipt"]`), verified when it came.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.lowlevel import RunVar
from inspect_ai.hooks import Hooks, hooks
from inspect_ai.model import GenerateConfig, ModelAPI, RetryDecision
from inspect_ai.util import LimitExceededError

from model_organisms import names
from model_organisms.client.client import connect
from model_organisms.errors import (
    BudgetExhausted,
    CellUnavailable,
    ConfigurationInvalid,
    InvalidArgument,
    ModelOrganismsError,
    Unavailable,
)
from model_organisms.evaluate import asking
from model_organisms.evaluate.purse import Purse
from model_organisms.records import BUDGET_FIELDS, Budget, Measure, Purpose

if TYPE_CHECKING:
    from inspect_ai.hooks import RunEnd
    from inspect_ai.model import ChatMessage, ModelOutput
    from inspect_ai.tool import ToolChoice, ToolInfo

    from model_organisms.client.client import Client
    from model_organisms.client.sandbox import Session
    from model_organisms.evaluate.asking import Asked
    from model_organisms.records import Probe, Sample

AT_ONCE = 14
"""Questions under way at once: a registry serves one person 16 calls, and checking receipts takes some."""
MOST_TOP = 5
_KNOWN = "identity, purpose, grant, hours, budget, at_once, scale"
_LIMITERS: RunVar[dict[tuple[str, int], anyio.CapacityLimiter]] = RunVar("model_organisms.sessions")
_open: set[SessionAPI] = set()


class SessionAPI(ModelAPI):
    """A session at a registry.

    Args:
        model_name: The version, `organisms/NAME/versions/3`, or in an auditing game the alias, `games/ID/aliases/1`.
        base_url: Not taken: the identity file says which registry.
        api_key: Not looked at.
        config: Inspect's.
        identity: Identity file; by default the one `mo login` wrote.
        purpose: The purpose of the grant; by default that of `grant`, and for an alias the game's own.
        grant: The grant to open the session under; by default the registry takes one that covers.
        hours: How long the session may last.
        budget: What the session may spend: a mapping, or text such as `tokens=20000,output_bytes=400000`; by default what the
            grant has left.
        at_once: Questions under way at once.
        scale: Dose of the organism: 0 is the bare base, as a control; needs the rung `probe`.
        unknown: Refused.

    Raises:
        InvalidName: `model_name` is not the name of a version or an alias.
        ConfigurationInvalid: An argument that it does not take, or a missing purpose.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature; it is not changed
        *,
        identity: str | None = None,
        purpose: str = "",
        grant: str = "",
        hours: float | None = None,
        budget: Mapping[str, int] | Sequence[str] | str | None = None,
        at_once: int = AT_ONCE,
        scale: float | None = None,
        **unknown: object,
    ) -> None:
        """Look at what was asked for; nobody is called yet."""
        super().__init__(model_name, base_url, api_key, [], config)
        asking.refuse_unknown(unknown, base_url, known=_KNOWN)
        names.check("alias" if names.in_game(model_name) else "version", model_name)
        if names.in_game(model_name) and not grant:
            purpose = purpose or Purpose.AUDITING_GAME
        if not (purpose or grant) or (purpose and purpose not in set(Purpose)):
            known = ", ".join(Purpose)
            raise ConfigurationInvalid(f"Say what for: -M purpose=, one of {known}; or -M grant=.", field="purpose")
        if at_once < 1:
            raise ConfigurationInvalid(f"at_once is {at_once}; give at least 1.", field="at_once")
        self._identity, self._purpose, self._grant = identity, purpose, grant
        self._duration = None if hours is None else timedelta(hours=hours)
        self._budget = read_budget(budget)
        self._at_once, self._scale = at_once, None if scale is None else float(scale)
        self._opening = threading.Lock()
        self._client: Client | None = None
        self._session: Session | None = None
        self._purse = Purse(0)

    @property
    def session(self) -> Session:
        """The session, opened if it is not yet; white-box suites probe and steer in it.

        Raises:
            GrantRequired: No grant covers sampling the version for the purpose.
            CellUnavailable: No cell is free.
            BudgetExhausted: The grant has no session left.
        """
        with self._opening:
            if self._session is None:
                client = connect(self._identity)
                try:
                    purpose = self._purpose or client.access.grant(self._grant).purpose
                    asked: dict[str, Any] = {"grant": self._grant, "budget": self._budget, "duration": self._duration}
                    self._session = client.sandbox.open(self.model_name, purpose=purpose, **asked)
                except BaseException:
                    client.close()
                    raise
                self._client, self._purse = client, Purse(self._session.record.budget.tokens)
                _open.add(self)
            return self._session

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one conversation in the session."""
        del tool_choice  # without tools there is nothing to choose
        asked = asking.asked(input, tools, config, scale=self._scale)
        _check(asked)
        # A thread that waits for the registry looks up between two pieces, so a cancelled sample lets go of its answer.
        return await anyio.to_thread.run_sync(partial(self._answer, asked), limiter=self._limiter())

    def max_tokens(self) -> int:
        """Longest answer where a task does not say."""
        return asking.MAX_TOKENS

    def max_connections(self) -> int:
        """Questions under way at once."""
        return self._at_once

    def connection_key(self) -> str:
        """Whose calls they are: a registry bounds them by person."""
        return self._identity or "default"

    def should_retry(self, ex: Exception) -> RetryDecision:
        """Say whether to ask again: where nothing was done, and the session stands."""
        if not isinstance(ex, Unavailable) or isinstance(ex, CellUnavailable) or self._session is None:
            return RetryDecision.no()
        return RetryDecision.rate_limit() if "limit" in ex.details else RetryDecision.transient()

    def close(self) -> None:
        """End the session; asked again, it opens another one."""
        with self._opening:
            session, client = self._session, self._client
            self._session = self._client = None
            _open.discard(self)
        if session is not None and client is not None:
            with client, session:
                pass

    async def aclose(self) -> None:
        """As `close`, without keeping others waiting."""
        await anyio.to_thread.run_sync(self.close)

    def _limiter(self) -> anyio.CapacityLimiter:
        """Bound the questions of one person; by event loop, which a model may outlive."""
        limiters = _LIMITERS.get({})
        _LIMITERS.set(limiters)
        return limiters.setdefault((self.connection_key(), self._at_once), anyio.CapacityLimiter(self._at_once))

    def _answer(self, asked: Asked) -> ModelOutput:
        try:
            probe = self._probe(asked) if asked.top is not None else None
            sample = self._sample(asked)
        except BudgetExhausted as error:
            raise self._limit(error.message, error.details.get("field", "")) from error
        receipt = sample.receipt
        if _cut(sample, asked):
            raise self._limit(f"The budget cut the answer {receipt.sample} (ledger {receipt.ledger_index}) short.")
        metadata = {"receipt": asking.print_receipt(receipt)}
        if probe:
            metadata["probe_receipt"] = asking.print_receipt(probe.receipt)
        scores = [asking.logprob(sample.text, probe.positions[0], top=asked.top or 0)] if probe else None
        say = partial(asking.output, tokens=receipt.tokens, scores=scores, metadata=metadata)
        return say(self.model_name, sample.text, sample.finish_reason)

    def _sample(self, asked: Asked) -> Sample:
        look = anyio.from_thread.check_cancelled
        session, purse = self.session, self._purse
        while True:
            since = purse.answered
            try:
                with purse.taken(asked.parameters.max_tokens, look) as drawn:
                    sample = _stream(session, asked)
                    drawn.append(sample.receipt.tokens)
                    return sample
            except BudgetExhausted:
                if not purse.more(since, look):
                    raise

    def _probe(self, asked: Asked) -> Probe:
        measures = [Measure.LOGPROBS]
        return self.session.probe(asked.messages, measures=measures, scale=asked.parameters.scale)

    def _limit(self, message: str, field: str = "") -> LimitExceededError:
        """Tell a budget that has ended in Inspect's words."""
        session, client = self._session, self._client
        if session is None or client is None:
            return LimitExceededError("custom", value=0, limit=0, message=message)
        record = session.record
        with suppress(ModelOrganismsError):
            record = client.sandbox.get(session.name)
        left = record.budget.minus(record.spent)
        # A budget without probes or pulls has none of these to end.
        ended = field or next((name for name in ("tokens", "output_bytes") if getattr(left, name) <= 0), "")
        value, limit = (getattr(of, ended, 0) for of in (record.spent, record.budget))
        return LimitExceededError("token" if ended == "tokens" else "custom", value=value, limit=limit, message=message)


def read_budget(said: Mapping[str, int] | Sequence[str] | str | None) -> Budget | None:
    """Read a budget as model arguments give it.

    Args:
        said: A mapping, or `tokens=20000,output_bytes=400000`, which Inspect's command splits at commas; None is none.

    Raises:
        ConfigurationInvalid: It is none.
    """
    if said is None:
        return None
    try:
        parts = said.split(",") if isinstance(said, str) else said
        pairs = dict(said) if isinstance(said, Mapping) else dict(part.split("=", 1) for part in parts)
        return Budget(**{name.strip(): int(value) for name, value in pairs.items()})
    except (TypeError, ValueError, AttributeError) as error:
        msg = f"'{said}' is no budget; write tokens=20000,output_bytes=400000, of {', '.join(BUDGET_FIELDS)}."
        raise ConfigurationInvalid(msg, field="budget") from error


@hooks("sessions", "Ends the sessions of a run with it")
class Sessions(Hooks):
    """Inspect closes no model by itself, and a session left open holds a cell."""

    def enabled(self) -> bool:
        """Only while there is something to end."""
        return bool(_open)

    async def on_run_end(self, data: RunEnd) -> None:
        """End them, whether the run ended well, failed or was cancelled."""
        del data
        await anyio.to_thread.run_sync(close_sessions)


@atexit.register
def close_sessions() -> None:
    """End all sessions that models of this process have open."""
    for model in list(_open):
        with suppress(ModelOrganismsError):  # the registry is away, and will end it by itself
            model.close()


def _check(asked: Asked) -> None:
    """Refuse what an engine here would do and a registry does not."""
    if asked.parameters.seed is not None:
        raise InvalidArgument("A registry chooses the seed, and the receipt tells it; leave `seed` out.", field="seed")
    if asked.top is None:
        return
    if not 0 <= asked.top <= MOST_TOP:
        raise InvalidArgument(f"top_logprobs is {asked.top}; a session tells at most {MOST_TOP}.", field="top_logprobs")
    if asked.parameters.max_tokens != 1:
        msg = "A session tells logprobs of the next token alone; ask with max_tokens=1, or use mo-local under a grant to pull."
        raise InvalidArgument(msg, field="logprobs")


def _stream(session: Session, asked: Asked) -> Sample:
    with closing(session.stream(asked.messages, asked.parameters)) as pieces:
        while True:
            anyio.from_thread.check_cancelled()
            try:
                next(pieces)
            except StopIteration as end:
                sample: Sample = end.value
                return sample


def _cut(sample: Sample, asked: Asked) -> bool:
    short = sample.receipt.parameters.max_tokens < asked.parameters.max_tokens
    return sample.finish_reason == "bytes" or (sample.finish_reason == "length" and short)
