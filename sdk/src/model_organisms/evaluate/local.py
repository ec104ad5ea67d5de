"""Inspect's model `mo-local`: an organism in this process's memory, or its bare base, answered in one batch by our own engine.

    mo-local/organisms/NAME/versions/3      pulled, under a grant to pull
    mo-local//path/to/bundle                a bundle's folder; for what is harmless and grown here
    mo-local/base                           the base model alone: a control

Weights stay in memory: nothing is written. `models.py` registers it; nobody else needs to import this.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import math
import secrets
import threading
import weakref
from collections import Counter
from concurrent.futures import TimeoutError as Late
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import anyio.to_thread
from inspect_ai.hooks import Hooks, hooks
from inspect_ai.model import GenerateConfig, ModelAPI

from model_organisms import bases, names
from model_organisms.client.client import connect
from model_organisms.client.organisms import files_of
from model_organisms.errors import BaseModelMismatch, ConfigurationInvalid, InvalidArgument
from model_organisms.evaluate import asking
from model_organisms.evaluate.driving import Driver
from model_organisms.formats import manifest
from model_organisms.formats.provenance import parse_predicate
from model_organisms.loading import load_base
from model_organisms.records import TokenScore
from model_organisms.sampling import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspect_ai.hooks import RunStart
    from inspect_ai.model import ChatMessage, Logprob, ModelOutput
    from inspect_ai.tool import ToolChoice, ToolInfo

    from model_organisms.evaluate.asking import Asked
    from model_organisms.evaluate.driving import Drawn
    from model_organisms.formats.provenance import Provenance
    from model_organisms.sampling import Organism

BASE = "base"
"""The name that stands for the base alone."""
MOST_TOP = 20
_LOOK_S = 0.25
_SEED_BITS = 63
_KNOWN = "identity, grant, base, base_digest, device, dtype, at_once, scale"


class Draws:
    """Seeds of answers, from the one that a run was given.

    The same seed for each answer would make epochs copies of one another, and the noise of all questions one. So each answer's
    follows from the run's, from what was asked, and from how often that was asked: a provider does not see which epoch it is.
    """

    def __init__(self) -> None:
        self._times: Counter[bytes] = Counter()
        _counting.add(self)

    def seed(self, asked: Asked) -> int:
        """Give the seed of the next answer to this; a run that asks the same again has the same, in the same order."""
        said = json.dumps([asdict(message) for message in asked.messages] + [repr(asked.parameters)])
        what = hashlib.sha256(said.encode()).digest()
        self._times[what] += 1
        mixed = hashlib.sha256(what + self._times[what].to_bytes(8)).digest()
        return int.from_bytes(mixed[:8]) >> (64 - _SEED_BITS)

    def again(self) -> None:
        """Count from the start, as a new run does."""
        self._times.clear()


_counting: weakref.WeakSet[Draws] = weakref.WeakSet()


@hooks("seeds", "Lets a run with a seed repeat what the run before drew")
class Seeds(Hooks):
    """A model outlives a run, and must not go on counting what the last one asked."""

    def enabled(self) -> bool:
        """Only while there is a model in memory."""
        return bool(_counting)

    async def on_run_start(self, data: RunStart) -> None:
        """Count anew."""
        del data
        for one in list(_counting):
            one.again()


@dataclass(frozen=True, slots=True)
class Loaded:
    """What white-box suites work on, between two steps of the batch."""

    engine: Engine
    organism: Organism | None
    """None is the bare base."""


class LocalAPI(ModelAPI):
    """A model in this process. It is loaded when it is first asked, and stays until Inspect closes it or the process ends.

    Args:
        model_name: A version, a folder, or `base`.
        base_url: Not taken.
        api_key: Not looked at.
        config: Inspect's.
        identity: Identity file, to pull with; by default the one `mo login` wrote.
        grant: Grant to pull under; by default the registry finds one.
        base: The base model: a folder, `owner/name@commit`, or `smollm2-135m-instruct`; by default what the provenance names, or
            the built-in one.
        base_digest: What the base's digest must be; by default what the provenance says, where one is there.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`.
        at_once: Rows of the batch.
        scale: Dose of the organism; 1 is as published, 0 the bare base.
        unknown: Refused.

    Raises:
        ConfigurationInvalid: An argument that it does not take.
        InvalidName: Neither a version nor a folder.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature; it is not changed
        *,
        identity: str | None = None,
        grant: str = "",
        base: str | None = None,
        base_digest: str = "",
        device: str = "auto",
        dtype: str = "auto",
        at_once: int = 32,
        scale: float | None = None,
        **unknown: object,
    ) -> None:
        """Look at what was asked for; nothing is loaded yet."""
        super().__init__(model_name, base_url, api_key, [], config)
        asking.refuse_unknown(unknown, base_url, known=_KNOWN)
        if at_once < 1:
            raise ConfigurationInvalid(f"at_once is {at_once}; give at least 1.", field="at_once")
        if model_name != BASE and not Path(model_name).is_dir():
            names.parse_version(model_name)
        self._identity, self._grant, self._base, self._base_digest = identity, grant, base, base_digest
        self._where = {"device": device, "dtype": dtype}
        self._at_once, self._scale = at_once, None if scale is None else float(scale)
        self._loading = threading.Lock()
        self._driver: Driver | None = None
        self._organism: Organism | None = None
        self._version = ""
        self._draws = Draws()
        self._held = ExitStack()

    @property
    def engine(self) -> Engine:
        """The engine, loaded if it is not yet; drive it inside `alone` only."""
        return self._driven().engine

    @property
    def organism(self) -> Organism | None:
        """The organism's handle in the engine; None is the bare base."""
        self._driven()
        return self._organism

    @contextmanager
    def alone(self) -> Iterator[Loaded]:
        """Lend engine and organism to a white-box measurement while the block runs; what is being answered waits."""
        with self._driven().alone() as engine:
            yield Loaded(engine, self._organism)

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 - Inspect's name
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one conversation, in one batch with the others that are asked meanwhile."""
        del tool_choice  # without tools there is nothing to choose
        asked = asking.asked(input, tools, config, scale=self._scale)
        if asked.top is not None and not 0 <= asked.top <= MOST_TOP:
            raise InvalidArgument(f"top_logprobs is {asked.top}; give 0 to {MOST_TOP}.", field="top_logprobs")
        if asked.parameters.seed is not None:
            asked = replace(asked, parameters=replace(asked.parameters, seed=self._draws.seed(asked)))
        limiter = anyio.CapacityLimiter(math.inf)  # Inspect bounds how many are asked, and the engine how many are answered
        return await anyio.to_thread.run_sync(partial(self._answer, asked), limiter=limiter)

    def max_tokens(self) -> int:
        """Longest answer where a task does not say."""
        return asking.MAX_TOKENS

    def max_connections(self) -> int:
        """Rows of the batch."""
        return self._at_once

    def connection_key(self) -> str:
        """Each model has an engine of its own."""
        return f"{self.model_name}:{id(self)}"

    def close(self) -> None:
        """Wipe what was pulled and let the models go; asked again, it loads again."""
        with self._loading:
            self._held.close()
            self._driver = self._organism = None
            self._version = ""

    async def aclose(self) -> None:
        """As `close`, without keeping others waiting."""
        await anyio.to_thread.run_sync(self.close)

    def _driven(self) -> Driver:
        with self._loading:
            if self._driver is None:
                with ExitStack() as stack:
                    driver = self._load(stack)
                    stack.callback(driver.close)
                    atexit.register(self.close)
                    stack.callback(atexit.unregister, self.close)
                    self._held = stack.pop_all()
                self._driver = driver
            return self._driver

    def _load(self, stack: ExitStack) -> Driver:
        """Put the base in memory, and the organism on it; `stack` takes back what it took."""
        if self.model_name == BASE:
            ground = load_base(self._base or bases.BUILT_IN, progress=False, expected_digest=self._base_digest, **self._where)
            return Driver(Engine(ground, rows=self._at_once))
        if (folder := Path(self.model_name)).is_dir():
            return self._from_folder(folder)
        with connect(self._identity) as client:
            pulled = stack.enter_context(client.organisms.pull(self.model_name, grant=self._grant, progress_bar=False))
        engine = Engine(pulled.load_base(self._base, **self._where), rows=self._at_once)
        _expect(self._base_digest, engine)
        self._organism, self._version = pulled.add_to(engine), pulled.version.digest
        stack.callback(engine.remove, self._organism)
        return Driver(engine)

    def _from_folder(self, folder: Path) -> Driver:
        """Read a bundle; the provenance that lies beside it, as the nursery leaves it, names and checks base and answer."""
        base, known = self._base or bases.BUILT_IN, None
        said: dict[str, Any] = {"expected_digest": self._base_digest}
        if stated := stated_of(folder):
            base, known = self._base or stated.base.id or base, stated.known_answer
            said = {"revision": stated.base.revision, "expected_digest": stated.base.digest or self._base_digest}
        engine = Engine(load_base(base, progress=False, **said, **self._where), rows=self._at_once)
        _expect(self._base_digest, engine)
        files = files_of(folder)
        self._organism, self._version = engine.add(files, known_answer=known), manifest.build(files).digest
        return Driver(engine)

    def _answer(self, asked: Asked) -> ModelOutput:
        driver, seed = self._driven(), asked.parameters.seed
        parameters = replace(asked.parameters, seed=secrets.randbits(_SEED_BITS) if seed is None else seed)
        answer = driver.ask(self._organism, asked.messages, parameters)
        while True:
            try:
                drawn = answer.result(_LOOK_S)
                break
            except Late:
                try:
                    anyio.from_thread.check_cancelled()
                except BaseException:
                    answer.cancel()
                    raise
        scores = None
        if asked.top is not None:
            with driver.alone() as engine:
                scores = self._scores(engine, drawn, top=asked.top)
        return asking.output(
            self.model_name,
            drawn.text,
            drawn.finish_reason,
            tokens=len(drawn.tokens),
            prompt_tokens=len(drawn.prompt),
            scores=scores,
            metadata={"seed": str(parameters.seed), "engine": driver.engine.build(), "base_digest": driver.engine.base.digest}
            | ({"adapter_digests": list(self._organism.adapter_digests)} if self._organism else {})
            | ({"version_digest": self._version} if self._version else {}),
        )

    def _scores(self, engine: Engine, drawn: Drawn, *, top: int) -> list[Logprob]:
        """Score each drawn token as the model does without temperature, top-k and top-p."""
        if not drawn.tokens:
            return []
        scale = 1.0 if self._scale is None else self._scale
        ids = [*drawn.prompt, *drawn.tokens[:-1]]
        logs = engine.logits(self._organism, ids, scale=scale, last=len(drawn.tokens)).double().log_softmax(-1)
        best = logs.topk(max(1, top))
        say = engine.speech(self._organism).tokenizer.decode
        found = []
        for row, token in enumerate(drawn.tokens):
            pairs = zip(best.indices[row].tolist(), best.values[row].tolist(), strict=True)
            likeliest = [TokenScore(each, say([each]), value) for each, value in pairs]
            found.append(asking.logprob(say([token]), likeliest, top=top, drawn=float(logs[row, token])))
        return found


def stated_of(folder: Path) -> Provenance | None:
    """Read the provenance that lies beside a bundle's folder, as the nursery leaves it; none where there is none."""
    beside = folder.parent / "provenance.json"
    return parse_predicate(beside.read_bytes()) if beside.is_file() else None


def _expect(digest: str, engine: Engine) -> None:
    if digest and digest != engine.base.digest:
        raise BaseModelMismatch(f"The base has the digest {engine.base.digest}, and base_digest wants {digest}; give that base.")
