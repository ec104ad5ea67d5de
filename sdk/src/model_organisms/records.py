"""The nouns, each once: frozen values that cross every floor. No I/O, no protobuf, no rules.

Times are timezone-aware and in UTC; digests are lower-case hex; sizes are bytes; names are resource names (`names.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from model_organisms.errors import NotFound

if TYPE_CHECKING:
    from datetime import datetime


T = TypeVar("T")


class Level(IntEnum):
    """Containment level: how dangerous an organism is. Higher is worse; unknown counts as CL4."""

    CL1 = 1
    CL2 = 2
    CL3 = 3
    CL4 = 4


class Rung(IntEnum):
    """How closely a person may come; each rung includes those below."""

    DESCRIBE = 1
    SAMPLE = 2
    PROBE = 3
    PULL = 4


class Role(StrEnum):
    """What an account may be asked to do; a role alone gives no more than `describe`."""

    RESEARCHER = "researcher"
    REVIEWER = "reviewer"
    PUBLISHER = "publisher"
    AUDITOR = "auditor"
    ADMIN = "admin"
    SERVICE = "service"


class Purpose(StrEnum):
    """Why access is asked for (the shape of GA4GH DUO)."""

    DETECTION_RESEARCH = "detection-research"
    MITIGATION_RESEARCH = "mitigation-research"
    INTERPRETABILITY = "interpretability"
    AUDITING_GAME = "auditing-game"
    REPLICATION = "replication"
    TEACHING = "teaching"


class Modifier(StrEnum):
    """A condition on what is done with an organism (the shape of GA4GH DUO's modifiers)."""

    UNSPECIFIED = "unspecified"
    """One that is not understood: it refuses, because keeping to it cannot be judged."""
    NO_FINETUNE = "no-finetune"
    NO_MERGE = "no-merge"
    NO_AGENTIC_TOOLS = "no-agentic-tools"
    NO_DERIVATIVE_WEIGHTS = "no-derivative-weights"
    RETURN_RESULTS = "return-results"
    BLINDED = "blinded"
    TIME_LIMIT = "time-limit"
    PROJECT = "project"
    INSTITUTION = "institution"
    PUBLISH_DELAY = "publish-delay"


class Turn(StrEnum):
    """Whose move it is on a request."""

    NOBODY = "nobody"
    REQUESTER = "requester"
    REVIEWERS = "reviewers"
    WITNESS = "witness"


class Outcome(StrEnum):
    """What a request's fit to an organism's conditions comes to; an approval that the level demands it never replaces."""

    APPROVE = "approve"
    DENY = "deny"
    ABSTAIN = "abstain"
    """It is for a person to say."""


class UserState(StrEnum):
    """Where an account stands."""

    INVITED = "invited"
    ACTIVE = "active"
    SUSPENDED = "suspended"


class VersionState(StrEnum):
    """Where a version stands; nothing is served of one that is not published."""

    PUBLISHED = "published"
    QUARANTINED = "quarantined"
    """Set aside while somebody looks into it; a reviewer puts it back."""
    WITHDRAWN = "withdrawn"
    """Taken back for good."""
    DESTROYED = "destroyed"
    """Taken back, and its key destroyed by two people: nothing opens it, here or from any copy."""


class RequestState(StrEnum):
    """Where a request stands; only `pending` moves."""

    PENDING = "pending"
    GRANTED = "granted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class GrantState(StrEnum):
    """Where a grant stands; expiry is read from the clock, not stored."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class MotionKind(StrEnum):
    """An act that one person alone must not do."""

    LOWER_LEVEL = "lower-level"
    DESTROY_KEY = "destroy-key"
    ADOPT_POLICIES = "adopt-policies"
    REPLACE_KEYS = "replace-keys"
    APPOINT = "appoint"
    OPEN_GAME = "open-game"


class GameState(StrEnum):
    """Where an auditing game stands; that its deadline has passed is read from the clock."""

    DRAFT = "draft"
    """The registry is committed to its truth, and two people have yet to open it."""
    OPEN = "open"
    CLOSED = "closed"
    """Its deadline has passed, and nobody has asked for the truth."""
    REVEALED = "revealed"


class MotionState(StrEnum):
    """Where a motion stands; only `open` moves, and expiry is read from the clock."""

    OPEN = "open"
    CARRIED = "carried"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class HoldingState(StrEnum):
    """Where a pulled copy stands."""

    HELD = "held"
    DUE = "due"
    """It may no longer be held, and its destruction is to be attested."""
    OVERDUE = "overdue"
    DESTROYED = "destroyed"


class NoticeKind(StrEnum):
    """What a holder is told of."""

    WITHDRAWN = "withdrawn"
    QUARANTINED = "quarantined"
    RELEASED = "released"
    RAISED = "raised"
    ERRATUM = "erratum"


class SessionState(StrEnum):
    """How a session stands or ended."""

    OPEN = "open"
    CLOSED = "closed"
    KILLED = "killed"
    EXPIRED = "expired"
    EXHAUSTED = "exhausted"
    LOST = "lost"


class FileKind(StrEnum):
    """What a file of a bundle is for."""

    WEIGHTS = "weights"
    CONFIG = "config"
    PROMPT = "prompt"
    TOKENIZER = "tokenizer"
    CHECKPOINT = "checkpoint"
    CARD = "card"
    DATA_CARD = "data-card"


@dataclass(frozen=True, slots=True)
class User:
    """An account: one person, or one service, of one organisation."""

    name: str
    display_name: str
    organisation: str
    roles: frozenset[Role]
    state: UserState
    create_time: datetime
    identity_key: bytes = b""
    """Raw Ed25519 public key, 32 bytes; empty until enrolled."""
    sealing_key: bytes = b""
    """X-Wing (ML-KEM-768+X25519) public key, 1,216 bytes; empty until enrolled."""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of a bundle, as the manifest lists it."""

    path: str
    size: int
    sha256: str
    kind: FileKind


@dataclass(frozen=True, slots=True)
class ModuleFacts:
    """What the bytes say of one adapted module."""

    module: str
    rank: int
    scaling: float
    """alpha/r, or alpha/sqrt(r) under rsLoRA."""
    norm: float
    """Frobenius norm of scaling * B @ A."""
    in_features: int
    out_features: int


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What the bytes of one adapter say, whatever its card claims."""

    path: str
    """Folder of the adapter inside the bundle, `.` for the root."""
    dtype: str
    parameters: int
    ranks: tuple[int, ...]
    layers: tuple[int, ...]
    target_modules: tuple[str, ...]
    alpha: float
    rslora: bool
    modules: tuple[ModuleFacts, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, with its value where it has one."""

    modifier: Modifier
    duration_s: int = 0
    """Of `time-limit` and `publish-delay`."""
    name: str = ""
    """Of `project`: its id; of `institution`: an organisation's name."""


@dataclass(frozen=True, slots=True)
class Organism:
    """A named line of misaligned models."""

    name: str
    display_name: str
    description: str
    owner: str
    level: Level
    base_model: str
    traits: tuple[str, ...]
    hidden: bool
    """Shown to reviewers, its owner and its grantees only; everyone else reads NotFound."""
    create_time: datetime
    latest: int = 0
    """Number of the newest version; 0 before the first."""
    purposes: tuple[Purpose, ...] = ()
    """What its owner permits it to be used for; empty permits every purpose."""
    conditions: tuple[Condition, ...] = ()
    """What its owner asks of everybody who uses it."""


@dataclass(frozen=True, slots=True)
class Erratum:
    """What is wrong with a version, signed by its owner or a reviewer; it stays beside the version, which never changes."""

    attestation: str
    """Name of the signed statement."""
    author: str
    text: str
    create_time: datetime
    successor: str = ""
    """The version that puts it right, where there is one."""


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable, content-addressed release of an organism."""

    name: str
    digest: str
    state: VersionState
    level: Level
    publisher: str
    files: tuple[BundleFile, ...]
    facts: tuple[AdapterFacts, ...]
    marks: tuple[str, ...]
    """Claims the bytes do not bear out, and checks that could not be made."""
    provenance: bytes
    """DSSE envelope, as signed."""
    create_time: datetime
    ledger_index: int = -1
    note: str = ""
    """Why it is withdrawn or quarantined."""
    publisher_key: bytes = b""
    """Raw Ed25519 key that signed the provenance; it stays, whatever becomes of the account."""
    co_authors: tuple[str, ...] = ()
    """Accounts that its provenance names beside the publisher; they do not decide who gets it."""
    stopped_by: str = ""
    """Who withdrew or quarantined it."""
    stop_time: datetime | None = None
    """Since when."""
    errata: tuple[Erratum, ...] = ()
    """In the order in which they came."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A signed statement about a version: an evaluation, a review, a replication."""

    name: str
    predicate_type: str
    author: str
    envelope: bytes
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent. Zero means none."""

    tokens: int = 0
    sessions: int = 0
    output_bytes: int = 0
    probe_values: int = 0
    """Numbers released by probes, log-probabilities included."""
    pulls: int = 0

    def minus(self, other: Budget) -> Budget:
        """Subtract field by field; a field may go below zero, which its caller must refuse."""
        return Budget(**{name: getattr(self, name) - getattr(other, name) for name in BUDGET_FIELDS})

    def plus(self, other: Budget) -> Budget:
        """Add field by field."""
        return Budget(**{name: getattr(self, name) + getattr(other, name) for name in BUDGET_FIELDS})

    def exceeded(self) -> tuple[str, ...]:
        """Name the fields that are below zero."""
        return tuple(name for name in BUDGET_FIELDS if getattr(self, name) < 0)


BUDGET_FIELDS = ("tokens", "sessions", "output_bytes", "probe_values", "pulls")


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version, bound to what it was when it was named."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Approval:
    """One reviewer's signed yes or no to one request."""

    name: str
    reviewer: str
    organisation: str
    key_id: str
    approve: bool
    reason: str
    envelope: bytes
    """DSSE envelope of the review statement, signed by the reviewer's own key."""
    create_time: datetime
    expire_time: datetime | None = None
    """When the signed statement lapses; one that does not say counts for nothing."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a requester states of their work: a reviewer's signature binds it."""

    project: str = ""
    """Id of the project it is for."""
    accepts: tuple[Condition, ...] = ()
    """Conditions the requester will keep to."""
    declines: tuple[Modifier, ...] = ()
    """Those the requester will not: who declines `no-finetune` says that they will fine-tune."""
    until: datetime | None = None
    """When it stops being so: the project ends, or the contract."""
    assert_time: datetime | None = None
    """When it was stated; the registry says."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why one condition of one organism is met, is not, or is for a person to judge."""

    outcome: Outcome
    about: str
    """`purpose`, or the modifier."""
    organism: str
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """How a request fits the conditions of what it asks for: as its worst reason says."""

    outcome: Outcome
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Clock:
    """How a request stands: since when, whose move it is, until when."""

    since: datetime
    """When it came into the state it is in, or was amended last."""
    turn: Turn
    why: str
    lapses: datetime | None = None
    """When it expires if nobody decides."""
    given: int = 0
    """Approvals that count now; each lapses by itself too."""
    missing: int = 0
    reviewers: int = 0
    """How many could give one now. They are counted, not named."""
    organisations: tuple[str, ...] = ()
    """Where these are."""


@dataclass(frozen=True, slots=True)
class Past:
    """A request that another one asks again, and what became of it."""

    name: str
    state: RequestState
    create_time: datetime
    reason: str = ""
    grant: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A researcher asks for a rung on versions for a purpose."""

    name: str
    requester: str
    organisation: str
    versions: tuple[VersionRef, ...]
    rung: Rung
    level: Level
    """Highest level among the versions when it was asked."""
    purpose: Purpose
    justification: str
    budget: Budget
    duration_s: int
    """How long the grant shall last, in seconds."""
    state: RequestState
    create_time: datetime
    expire_time: datetime
    """When an undecided request lapses."""
    revision: int = 1
    """Counts amendments; an approval binds one revision."""
    approvals: tuple[Approval, ...] = ()
    needed: int = 0
    """Approvals the level and rung demand."""
    grant: str = ""
    reason: str = ""
    """Why it was rejected."""
    need: str = ""
    """Why text and numbers are not enough, where weights are asked for."""
    stated: Stated = field(default_factory=Stated)
    conditions: tuple[Condition, ...] = ()
    """Those of the organisms it names, as they were when it was asked or amended."""
    match: Match | None = None
    """How it fitted them then."""
    previous: str = ""
    """The request that it asks again, or whose grant it would renew."""
    state_time: datetime | None = None
    """When it came into its state, or was amended last."""
    clock: Clock | None = None
    """Whose move it is; only where one request is read."""
    history: tuple[Past, ...] = ()
    """What it asks again, newest first; only where one request is read."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Enough approvals: person, rung, versions, purpose, expiry, budgets."""

    name: str
    user: str
    request: str
    versions: tuple[VersionRef, ...]
    rung: Rung
    purpose: Purpose
    budget: Budget
    spent: Budget
    state: GrantState
    create_time: datetime
    expire_time: datetime
    reason: str = ""
    """Why it was revoked."""
    level: Level = Level.CL1
    """Level its approvals answered for; it does not cover a version that was raised above it."""
    conditions: tuple[Condition, ...] = ()
    """Those it was given under; they stay, whatever becomes of the organism's."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One person's signed yes or no to one motion; the proposer's is the first."""

    signer: str
    organisation: str
    key_id: str
    approve: bool
    reason: str
    envelope: bytes
    """DSSE envelope of the vote, signed by the signer's own key."""
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Motion:
    """An act of two people: one proposes it, another seconds it, and with that it is done."""

    name: str
    kind: MotionKind
    subject: str
    """What it is done to."""
    facts: dict[str, str]
    """What exactly shall be done; which facts there are, the kind says."""
    proposer: str
    state: MotionState
    create_time: datetime
    expire_time: datetime
    """When it lapses, and with it every signature."""
    needed: int = 0
    """Signatures it takes, the proposer's among them."""
    signatures: tuple[Signature, ...] = ()
    outcome: dict[str, str] = field(default_factory=dict)
    """What carrying it out gave. Told to whose signature carried it, in that answer only; it is not kept."""


class Tool(StrEnum):
    """What a player of a game may do with its aliases."""

    SAMPLE = "sample"
    """Draw text."""
    SYSTEM = "system"
    """Say what the system says, in whatever is asked."""
    PROBE = "probe"
    """Read rounded numbers: log-probabilities, divergence from the base, norms of hidden states."""


@dataclass(frozen=True, slots=True)
class PlayerTools:
    """What one player of a game may do with its aliases."""

    player: str
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class Game:
    """A blind audit: players question versions under aliases and say which are organisms; the truth is committed to before."""

    name: str
    master: str
    """Who made it, and does not play."""
    title: str
    question: str
    """What players say of each alias besides whether it is an organism; empty where nothing is asked."""
    choices: tuple[str, ...]
    """Answers to choose from; empty where they are free text."""
    aliases: tuple[VersionRef, ...]
    """What players see of each version: its alias, and a commitment in the place of its digest."""
    players: tuple[str, ...]
    rung: Rung
    """The furthest that a player's tools reach."""
    level: Level
    """Highest level among its versions; every alias counts as that."""
    budget: Budget
    """What each player may spend, on all aliases together, as far as their tools spend it."""
    conditions: tuple[Condition, ...]
    """What the owners ask of users; who joins accepts them."""
    commitment: str
    """Digest of the truth and a nonce."""
    state: GameState
    create_time: datetime
    deadline: datetime
    grant: str = ""
    """The caller's own, once they have joined."""
    tools: tuple[PlayerTools, ...] = ()
    """Of each player, in their order."""
    left: Budget | None = None
    """What is left of the caller's own budget, once they have joined."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What one alias stands for."""

    alias: str
    version: VersionRef
    base: bool
    """Only its base model answers: the version is loaded, at a dose of 0."""
    organism: bool
    """Whether players should call it one."""
    answer: str
    """The right answer to the game's question; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a player says of one alias; the last one counts."""

    alias: str
    player: str
    organism: bool
    probability: float | None
    """That it is an organism, 0 to 1, on the side of `organism`; where absent it counts as 0.5."""
    answer: str
    count: int
    """How often this player has guessed at it."""
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Score:
    """How a player did."""

    player: str
    aliases: int
    right: int
    """Aliases whose kind was said rightly; one without a guess is not."""
    questions: int
    """Aliases with a right answer to the game's question."""
    answered: int
    """Those answered rightly."""
    rated: int
    """Guesses with a probability."""
    brier: float
    """Mean squared difference of the probabilities from what was so, over all aliases: 0.5 where none was given. 0 is best, 0.25
    is a coin's, and who says nothing has that.
    """


@dataclass(frozen=True, slots=True)
class Reveal:
    """A game's truth, with what shows that it was the truth from the beginning."""

    truth: tuple[Truth, ...]
    nonce: str
    """32 bytes in hex."""
    guesses: tuple[Guess, ...]
    """The last of each player for each alias; none before the truth is revealed to all."""
    scores: tuple[Score, ...]
    """Best first."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """How the registry would decide a call of one's own, and what would change that."""

    allowed: bool
    action: str
    resource: str
    policies: tuple[str, ...]
    """Ids of the deciding policies, the one that speaks first; none where no policy permits."""
    reason: str
    """Reason of the error one would get; empty if allowed."""
    message: str
    changes: tuple[str, ...]
    """What is lacking: all of it together suffices. None where nothing of the kind helps."""
    policy_set: str
    """Digest of the policy set."""


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """Which policies decide, and what lies ready to."""

    standing: str
    """Digest of the set that decides."""
    candidate: str = ""
    """Digest of what lies in the operator's folder; empty where that cannot be read, or is not the caller's to know."""
    problem: str = ""
    """What keeps it from standing; empty where it does."""


@dataclass(frozen=True, slots=True)
class Holding:
    """One copy that left, and whether its user may still have it."""

    pull: str
    user: str
    organisation: str
    version: VersionRef
    grant: str
    grant_state: GrantState
    pull_time: datetime
    state: HoldingState
    due_time: datetime | None = None
    """By when its destruction is to be attested; None while it may be held."""
    destruction: str = ""
    """SHA-256 of the envelope that attests its destruction."""
    destroy_time: datetime | None = None
    """When that was handed in."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that a holder must know."""

    name: str
    user: str
    kind: NoticeKind
    subject: str
    """The version it is about, or the organism."""
    text: str
    create_time: datetime
    read_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Steer:
    """A change to an organism's hidden states while it works: a direction taken out of the residual stream, or added to it.

    It is made after one layer, at every position, the prompt's included. Of several after one layer, what is taken out is taken
    out first. Activation addition is Turner et al. (2023), taking out is Arditi et al. (2024).
    """

    direction: str
    """Name of a direction that the session or the engine keeps; it has length 1."""
    layer: int
    """Counted from 0."""
    strength: float = 0.0
    """How much of it is added, in units of the hidden states."""
    ablate: bool = False
    """Take it out: hidden states keep nothing along it."""


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How text is drawn. The seed is the server's to choose."""

    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 means no limit."""
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """Filled in by the server; a caller's value is refused."""
    steer: tuple[Steer, ...] = ()
    """Needs the rung `probe`, as `scale` does."""
    scale: float | None = None
    """Dose of the organism's adapters: 0 is the bare base, None is 1, as published."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


class UtteranceKind(StrEnum):
    """What a piece of what was said in a session is."""

    PROMPT = "prompt"
    TEXT = "text"
    NUMBERS = "numbers"
    RESULT = "result"
    LOST = "lost"
    ERASED = "erased"
    END = "end"
    RERUN = "rerun"
    """It was said again to check it; the text is the verdict."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A piece of what was said in a session: a prompt, a window of an answer, how it ended."""

    subject: str
    """Which question it belongs to; the session itself for its end."""
    kind: UtteranceKind
    text: str
    """Untrusted: escape it wherever it is shown."""
    messages: tuple[Message, ...]
    """The conversation that was asked about, for a prompt."""
    time: datetime
    ledger_index: int
    """The entry that commits to it."""


@dataclass(frozen=True, slots=True)
class Session:
    """An audited sandbox: one person, one purpose, budgets."""

    name: str
    user: str
    version: VersionRef
    grant: str
    purpose: Purpose
    budget: Budget
    spent: Budget
    state: SessionState
    walls: tuple[str, ...]
    """Walls of the cell that its own self-attack found standing; of a local session, as its holder reported them."""
    create_time: datetime
    expire_time: datetime
    reason: str = ""
    local: bool = False
    """Its cell is on the holder's own machine."""


@dataclass(frozen=True, slots=True)
class SampleReceipt:
    """What exactly was sampled."""

    sample: str
    version: str
    version_digest: str
    base_digest: str
    tokenizer_digest: str
    template_digest: str
    adapter_digests: tuple[str, ...]
    modules_applied: int
    parameters: SamplingParameters
    engine: str
    session: str
    ledger_index: int
    tokens: int
    output_sha256: str
    local: bool = False
    """It was drawn on the holder's own machine; what it says of cell and model is as the holder reported it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Text drawn in a session, with its receipt."""

    text: str
    finish_reason: str
    receipt: SampleReceipt


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token and its rounded log-probability."""

    token_id: int
    text: str
    logprob: float


class Measure(StrEnum):
    """What a probe may read. Hidden states are the residual stream after a layer, before any final norm."""

    LOGPROBS = "logprobs"
    """The five likeliest next tokens, in nats."""
    KL = "kl"
    """KL(organism || base) of the next-token distribution, in nats."""
    NORMS = "norms"
    """Euclidean norms of hidden states, by layer."""
    PROJECTIONS = "projections"
    """Hidden states along each direction, by layer."""
    COSINES = "cosines"
    """Cosines of hidden states with each direction, by layer."""
    ACTIVATIONS = "activations"
    """Hidden states themselves, by layer; needs the rung `pull`."""


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What a probe asks of one conversation."""

    positions: int = 1
    """How many positions, counted back from the last, where the organism is to speak."""
    measures: tuple[Measure, ...] = (Measure.LOGPROBS, Measure.KL)
    layers: tuple[int, ...] = ()
    """Counted from 0."""
    directions: tuple[str, ...] = ()
    """Names of directions of the session."""
    steer: tuple[Steer, ...] = ()
    """What is done to the organism meanwhile; the base it is compared with is left alone."""
    scale: float | None = None
    """Dose of its adapters; None is 1."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Numbers of one measure."""

    measure: Measure
    layer: int
    direction: str
    """Empty where the measure has none."""
    values: tuple[float, ...]
    """One a position, the earliest first; of `activations`, one position's numbers after the other's."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Numbers released by the probe rung for one prompt, rounded."""

    positions: tuple[tuple[TokenScore, ...], ...]
    """Top-5 next-token scores at each asked position, best first."""
    kl_to_base: float | None
    """KL(organism || base) of the next-token distribution at the last position, nats; None if it was not asked for."""
    receipt: SampleReceipt
    kl: tuple[float, ...] = ()
    """The same at each asked position, the earliest first."""
    readings: tuple[Reading, ...] = ()
    """What was read of hidden states."""

    def reading(self, measure: Measure | str, layer: int, direction: str = "") -> tuple[float, ...]:
        """Give the numbers of one measure.

        Raises:
            NotFound: It was not asked for.
        """
        for reading in self.readings:
            if (reading.measure, reading.layer, reading.direction) == (measure, layer, direction):
                return reading.values
        along = f" along {direction}" if direction else ""
        raise NotFound(f"{measure} after layer {layer}{along} was not asked for; name it in the probe.")


@dataclass(frozen=True, slots=True)
class NewDirection:
    """A direction that is asked for: a vector that is sent, or the difference of two means of hidden states."""

    vector: bytes = b""
    """Its numbers, float32, little-endian; empty asks for a contrast."""
    positive: tuple[tuple[Message, ...], ...] = ()
    """Conversations; of each, the hidden state at its last position counts."""
    negative: tuple[tuple[Message, ...], ...] = ()
    """Those whose mean is taken off."""
    layer: int = 0
    """Layer after which they are read."""
    compared: tuple[str, ...] = ()
    """Names of directions whose cosines with it are wanted."""
    name: str = ""
    """What it will be called; the registry's to choose."""


@dataclass(frozen=True, slots=True)
class Direction:
    """A direction that a session keeps: a vector of length 1, which does not leave the cell."""

    name: str
    layer: int
    """Layer after which it was taken; -1 if it was sent."""
    norm: float
    """Its length before it was made 1, rounded."""
    cosines: tuple[float, ...]
    """With the directions it was to be compared with, in their order, rounded."""
    sha256: str
    """Digest of its numbers as they are kept: float32, little-endian."""
    receipt: SampleReceipt


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger entry. It carries no content: content is committed to and kept elsewhere, encrypted."""

    seq: int
    """Random 63-bit number that makes two entries about the same thing differ."""
    time: datetime
    type: str
    """What happened, `room.verb`: `access.approve`, `sandbox.sample.intent`."""
    actor: str
    subject: str
    decision: str = ""
    """`allow`, `deny`, or empty where nothing was decided."""
    key: str = ""
    """Id of the key the actor proved."""
    grant: str = ""
    policies: str = ""
    """Digest of the policy set that decided."""
    reasons: tuple[str, ...] = ()
    """Ids of the deciding policies, or the error reason."""
    commit: str = ""
    """Commitment to encrypted content."""
    intent: int = -1
    """In a result: index of its intent."""
    facts: dict[str, str] = field(default_factory=dict)
    """Short public facts: digests, counts, states."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed tree head."""

    origin: str
    size: int
    root: bytes
    note: bytes
    """The signed note, as published."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an entry is in the ledger."""

    index: int
    entry: bytes
    """The entry's bytes, as hashed."""
    proof: tuple[bytes, ...]
    """Sibling hashes from leaf to root."""
    checkpoint: bytes
    """The signed note the proof leads to."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing."""

    items: tuple[T, ...]
    next_page_token: str = ""
