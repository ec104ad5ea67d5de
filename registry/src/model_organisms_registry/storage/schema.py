"""The tables, all of them on one `metadata`; only `storage/` and `ledger/` should be here.

- A row's key is its resource name, so a foreign key reads like a sentence and a page token needs one value.
- Each index answers one listing in its order, so a page costs the same at 10^3 rows and at 10^6.
- What two calls could race for is a constraint here, not a promise of the code above.
"""

from __future__ import annotations

from model_organisms.records import BUDGET_FIELDS
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from model_organisms_registry.storage.codecs import Instant, Words

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every constraint gets a name, because a migration can only change what has one."""


def _words(name: str, *constraints: ForeignKey, null: bool = False) -> Column[str]:
    return Column(name, Words, *constraints, nullable=null)


def _later(name: str, was: str) -> Column[str]:
    """A text that rows from before have without having been asked."""
    return Column(name, Words, nullable=False, server_default=was)


def _key(name: str, *constraints: ForeignKey) -> Column[str]:
    return Column(name, Words, *constraints, primary_key=True)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _budget(prefix: str) -> list[Column[int]]:
    return [_count(f"{prefix}_{field}") for field in BUDGET_FIELDS]


def _budget_since(prefix: str) -> list[Column[int]]:
    """A budget of which rows from before know nothing."""
    return [Column(f"{prefix}_{field}", BigInteger, nullable=False, server_default="0") for field in BUDGET_FIELDS]


def _within_budget() -> list[CheckConstraint]:
    """The last wall: whatever the code does, no row can hold more spent than given."""
    return [CheckConstraint(f"spent_{field} BETWEEN 0 AND budget_{field}", name=f"within_{field}") for field in BUDGET_FIELDS]


# identity

users = Table(
    "users",
    metadata,
    _key("name"),
    _words("display_name"),
    _words("organisation"),
    _words("roles"),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("identity_key", LargeBinary, nullable=False),
    Column("sealing_key", LargeBinary, nullable=False),
    Column("key_id", Words, unique=True),
    Column("suspend_time", Instant),
)

enrolments = Table(
    "enrolments",
    metadata,
    _key("code_hash"),
    _words("user", ForeignKey("users.name")),
    Column("expire_time", Instant, nullable=False),
    Column("use_time", Instant),
    Column("replaces", Words),
)

subjects = Table(
    "subjects",
    metadata,
    _key("issuer"),
    _key("subject"),
    _words("user", ForeignKey("users.name")),
    UniqueConstraint("user"),
)

spent_tokens = Table(
    "spent_tokens",
    metadata,
    _key("digest"),
    Column("expire_time", Instant, nullable=False),
    Index(None, "expire_time"),
)

denied_certificates = Table(
    "denied_certificates",
    metadata,
    _key("thumbprint"),
    _words("reason"),
    Column("create_time", Instant, nullable=False),
)

# organisms

organisms = Table(
    "organisms",
    metadata,
    _key("name"),
    _words("display_name"),
    _words("description"),
    _words("owner", ForeignKey("users.name")),
    Column("level", Integer, nullable=False),
    _words("base_model"),
    _words("traits"),
    Column("hidden", Boolean, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("latest", Integer, nullable=False),
    _later("purposes", "[]"),
    _later("conditions", "[]"),
    Index(None, "level", "name"),
    Index(None, "owner", "name"),
    Index(None, "base_model", "name"),
)

organism_traits = Table(
    "organism_traits",
    metadata,
    _key("trait"),
    _key("organism", ForeignKey("organisms.name")),
)

organism_words = Table(
    "organism_words",
    metadata,
    _key("word"),
    _key("organism", ForeignKey("organisms.name")),
)
"""The words of an organism's card, lower-case: free text is searched by the beginnings of words."""

versions = Table(
    "versions",
    metadata,
    _key("name"),
    _words("organism", ForeignKey("organisms.name")),
    Column("number", Integer, nullable=False),
    _words("digest"),
    _words("state"),
    Column("level", Integer, nullable=False),
    _words("publisher", ForeignKey("users.name")),
    Column("publisher_key", LargeBinary, nullable=False),
    _words("files"),
    _words("facts"),
    _words("marks"),
    Column("provenance", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
    _count("ledger_index"),
    _words("note"),
    _later("co_authors", "[]"),
    Column("stopped_by", Words, nullable=False, server_default=text("''")),
    Column("stop_time", Instant),
    _later("errata", "[]"),
    UniqueConstraint("organism", "number"),
    UniqueConstraint("organism", "digest"),
)

attestations = Table(
    "attestations",
    metadata,
    _key("name"),
    _words("version", ForeignKey("versions.name")),
    _words("predicate_type"),
    _words("author"),
    Column("envelope", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
    Index(None, "version", "name"),
)

uploads = Table(
    "uploads",
    metadata,
    _key("name"),
    _words("user", ForeignKey("users.name")),
    _words("organism", ForeignKey("organisms.name")),
    Column("manifest", LargeBinary, nullable=False),
    Column("provenance", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant, nullable=False, index=True),
)

# access

requests = Table(
    "requests",
    metadata,
    _key("name"),
    _words("requester", ForeignKey("users.name")),
    _words("organisation"),
    Column("rung", Integer, nullable=False),
    Column("level", Integer, nullable=False),
    _words("purpose"),
    _words("justification"),
    *_budget("budget"),
    _count("duration_s"),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("needed", Integer, nullable=False),
    _words("grant"),
    _words("reason"),
    _words("need"),
    _later("stated", "{}"),
    _later("conditions", "[]"),
    _later("match", "null"),
    Column("previous", Words, nullable=False, server_default=text("''")),
    Column("state_time", Instant),
    Index(None, "requester", "name"),
    Index(None, "state", "name"),
)

request_versions = Table(
    "request_versions",
    metadata,
    _key("request", ForeignKey("requests.name")),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _words("version", ForeignKey("versions.name")),
    _words("digest"),
    UniqueConstraint("version", "request"),
)

approvals = Table(
    "approvals",
    metadata,
    _key("request", ForeignKey("requests.name")),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    _key("reviewer", ForeignKey("users.name")),
    _words("name"),
    _words("organisation"),
    _words("key_id"),
    Column("approve", Boolean, nullable=False),
    _words("reason"),
    Column("envelope", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant),
    Column("nonce", Words),
    Index(None, "key_id", "nonce", unique=True),
)
"""The key is the rule: one reviewer, one vote a revision. So is the index: no statement counts twice, wherever it goes."""

grants = Table(
    "grants",
    metadata,
    _key("name"),
    _words("user", ForeignKey("users.name")),
    _words("request"),
    Column("rung", Integer, nullable=False),
    _words("purpose"),
    *_budget("budget"),
    *_budget("spent"),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant, nullable=False),
    Column("revoke_time", Instant),
    _words("reason"),
    Column("level", Integer, nullable=False),
    _later("conditions", "[]"),
    *_within_budget(),
    Index(None, "user", "name"),
    Index(None, "state", "name"),
)

grant_versions = Table(
    "grant_versions",
    metadata,
    _key("grant", ForeignKey("grants.name")),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _words("user"),
    _words("organism"),
    _words("version", ForeignKey("versions.name")),
    _words("digest"),
    UniqueConstraint("version", "grant"),
    Index(None, "user", "digest"),
    Index(None, "user", "organism"),
)
"""`user` and `organism` are repeated here, so that "may this user touch these bytes" is one look into one index."""

grant_aliases = Table(
    "grant_aliases",
    metadata,
    _key("grant", ForeignKey("grants.name")),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _words("alias"),
    _words("digest"),
    Index(None, "alias", "grant"),
)
"""What a player's grant covers, apart from `grant_versions`: nobody who looks there for holders of a version finds a player."""

# games

games = Table(
    "games",
    metadata,
    _key("name"),
    _words("master", ForeignKey("users.name")),
    _words("title"),
    _words("question"),
    _words("choices"),
    Column("rung", Integer, nullable=False),
    Column("level", Integer, nullable=False),
    *_budget("budget"),
    _words("conditions"),
    _words("commitment"),
    _words("nonce"),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("deadline", Instant, nullable=False),
    Index(None, "master", "name"),
)

game_aliases = Table(
    "game_aliases",
    metadata,
    _key("alias"),
    _words("game", ForeignKey("games.name")),
    Column("number", Integer, nullable=False),
    _words("blind"),
    _words("version", ForeignKey("versions.name")),
    _words("digest"),
    Column("base", Boolean, nullable=False),
    Column("organism", Boolean, nullable=False),
    _words("answer"),
    UniqueConstraint("game", "number"),
)

game_players = Table(
    "game_players",
    metadata,
    _key("game", ForeignKey("games.name")),
    _key("user", ForeignKey("users.name")),
    Column("position", Integer, nullable=False),
    _words("grant"),
    _later("tools", '["sample", "system"]'),
    Index(None, "user", "game"),
)
"""`grant` is empty until the player has joined."""

guesses = Table(
    "guesses",
    metadata,
    _key("alias", ForeignKey("game_aliases.alias")),
    _key("player", ForeignKey("users.name")),
    Column("organism", Boolean, nullable=False),
    Column("probability", Words),
    _words("answer"),
    Column("times", Integer, nullable=False),
    Column("create_time", Instant, nullable=False),
)
"""The last of each player for each alias. A probability is kept as Python prints it, which reads back as the same number."""

# motions

motions = Table(
    "motions",
    metadata,
    _key("name"),
    _words("kind"),
    _words("subject"),
    _words("facts"),
    _words("proposer", ForeignKey("users.name")),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant, nullable=False),
    Column("needed", Integer, nullable=False),
    Index(None, "proposer", "name"),
    Index(None, "state", "name"),
)

motion_signatures = Table(
    "motion_signatures",
    metadata,
    _key("motion", ForeignKey("motions.name")),
    _key("signer", ForeignKey("users.name")),
    _words("organisation"),
    _words("key_id"),
    Column("approve", Boolean, nullable=False),
    _words("reason"),
    Column("envelope", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
)
"""The key is the rule: one person, one voice a motion."""

# sandbox

policy_sets = Table(
    "policy_sets",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _words("digest"),
    _words("texts"),
    Column("create_time", Instant, nullable=False),
)
"""Each that was adopted; the one with the highest number stands."""

replicas = Table(
    "replicas",
    metadata,
    _key("name"),
    _count("beat"),
    Column("seen_time", Instant, nullable=False),
)
"""Processes that share this database. What tells that one lives is that its beat goes on, not its clock."""

sessions = Table(
    "sessions",
    metadata,
    _key("name"),
    _words("user", ForeignKey("users.name")),
    _words("version", ForeignKey("versions.name")),
    _words("digest"),
    _words("grant", ForeignKey("grants.name"), null=True),
    _words("purpose"),
    *_budget("budget"),
    *_budget("spent"),
    _words("state"),
    _words("walls"),
    Column("create_time", Instant, nullable=False),
    Column("expire_time", Instant, nullable=False),
    Column("end_time", Instant),
    _words("reason"),
    Column("samples", Integer, nullable=False),
    Column("replica", Words, nullable=False, server_default=text("''")),
    _later("place", "registry"),
    Column("used_time", Instant),
    Column("alias", Words, nullable=False, server_default=text("''")),
    Column("blind", Words, nullable=False, server_default=text("''")),
    *_within_budget(),
    Index(None, "user", "name"),
    Index(None, "version", "name"),
    Index(None, "state", "name"),
    Index(None, "grant", "name"),
)
"""`place` is `holder` for a session whose cell is on its holder's machine; only there `used_time` is kept. In a game, `alias` and
`blind` stand for version and digest wherever the row is read."""

local_turns = Table(
    "local_turns",
    metadata,
    _key("session", ForeignKey("sessions.name")),
    _words("name"),
    _words("kind"),
    _words("parameters"),
    *_budget("taken"),
    Column("create_time", Instant, nullable=False),
)
"""Questions to local cells that were announced and not yet reported. The key is the rule: one at a time in a session."""

intents = Table(
    "intents",
    metadata,
    _key("id"),
    _words("kind"),
    _words("subject"),
    _words("parent"),
    _count("seq"),
    Column("create_time", Instant, nullable=False),
    Column("finish_time", Instant),
    Column("outcome", Words),
    Column("replica", Words, nullable=False, server_default=text("''")),
    Column("grant", Words, nullable=False, server_default=text("''")),
    *_budget_since("taken"),
    *_budget_since("used"),
    Index(
        "ix_intents_unfinished",
        "create_time",
        "id",
        sqlite_where=text("finish_time IS NULL"),
        postgresql_where=text("finish_time IS NULL"),
    ),
)

reruns = Table(
    "reruns",
    metadata,
    _key("turn"),
    _words("session", ForeignKey("sessions.name")),
    _count("seq"),
    _words("receipt"),
    Column("create_time", Instant, nullable=False),
    Column("next_time", Instant),
    _words("replica"),
    _words("verdict"),
    Column("end_time", Instant),
    Index(None, "next_time", "turn"),
    Index(None, "verdict", "end_time"),
)
"""Turns that are to be said again, since the transaction that ended them. `receipt` holds stop strings; the end empties it."""

pulls = Table(
    "pulls",
    metadata,
    _key("name"),
    _words("user", ForeignKey("users.name")),
    _words("grant", ForeignKey("grants.name"), null=True),
    _words("version", ForeignKey("versions.name")),
    _words("digest"),
    _words("commitment"),
    Column("head", LargeBinary, nullable=False),
    _count("body_size"),
    _count("segments"),
    _words("state"),
    Column("create_time", Instant, nullable=False),
    Column("destruction", Words, nullable=False, server_default=text("''")),
    Index(None, "version", "name"),
    Index(None, "user", "name"),
    Index(None, "grant", "name"),
)
"""`destruction` is the digest of the statement that attests it; empty while none does."""

destructions = Table(
    "destructions",
    metadata,
    _key("digest"),
    _words("grant", ForeignKey("grants.name")),
    _words("version", ForeignKey("versions.name")),
    _words("user", ForeignKey("users.name")),
    Column("envelope", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    _key("name"),
    _words("user", ForeignKey("users.name")),
    _words("kind"),
    _words("subject"),
    _words("text"),
    Column("create_time", Instant, nullable=False),
    Column("read_time", Instant),
    Index(None, "user", "name"),
)

outbox = Table(
    "outbox",
    metadata,
    _key("id"),
    _words("hook"),
    _words("type"),
    Column("body", LargeBinary, nullable=False),
    Column("create_time", Instant, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_time", Instant),
    _words("error"),
    Index(None, "hook", "next_time", "id"),
)

contents = Table(
    "contents",
    metadata,
    _key("commit"),
    _words("owner"),
    _words("blob"),
    _words("key_id"),
    Index(None, "owner", "commit"),
)
"""Where the encrypted content behind a ledger entry's commitment lies, and which key opens it."""
