"""Attacks on the policies: on what they are asked, and on the folder they are read from."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace

import pytest
from model_organisms.errors import ConfigurationInvalid, InvalidArgument, InvalidName
from model_organisms.records import Role
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.gate.cedar import FAULT, NEVER, PolicySet, shipped_folder
from model_organisms_registry.gate.table import rows

from tests.domain.cast import grant, organism, request, session, user, version

SOUND = PolicySet.read()
FORBID = '@id("local-x")\n@advice("No.")\nforbid (principal, action == Action::"pull", resource) when { CONDITION };\n'
PERMIT = '@id("local-x")\npermit (principal, action, resource);\n'


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "policies"
    shutil.copytree(shipped_folder(), copy, ignore=shutil.ignore_patterns("cases"))
    return copy


def allowed_pull():
    """A pull that the shipped set allows, as Cedar is asked."""
    row = next(row for row in rows() if row.action is Action.PULL and SOUND.decide(row.request(), row.entities()).allowed)
    return row.request(), json.loads(row.entities())


def refused(asked, given):
    return not SOUND.decide(asked, json.dumps(given)).allowed


def test_the_pull_that_is_attacked_below_is_allowed():
    assert not refused(*allowed_pull())


# what Cedar is asked


A_PERSON = {"__entity": {"type": "User", "id": "x"}}
RIGHT = {("published", True), ("jail", True), ("active", True), ("owner", str(A_PERSON))}


@pytest.mark.parametrize("value", [None, "2", 2.0, True, [], {}, 1 << 63, -(1 << 63) - 1, A_PERSON])
@pytest.mark.parametrize("where", ["level", "published", "owner", "rung", "jail", "active"])
def test_a_fact_of_the_wrong_type_never_helps(where, value):
    asked, (me, it) = allowed_pull()
    if where in it["attrs"]:
        it["attrs"][where] = value
    elif where == "rung":
        asked["context"]["grant"]["rung"] = value
    elif where == "jail":
        asked["context"]["jail"] = value
    else:
        me["attrs"]["active"] = value
    right = (where, value if value is True else str(value)) in RIGHT
    assert refused(asked, [me, it]) is not right


def lacking():
    asked, (me, it) = allowed_pull()
    yield from (("context", name) for name in asked["context"])
    yield from (("grant", name) for name in asked["context"]["grant"])
    yield from (("it", name) for name in it["attrs"])
    yield from (("me", name) for name in me["attrs"])


@pytest.mark.parametrize(("where", "name"), list(lacking()))
def test_a_fact_that_is_left_out_is_a_no(where, name):
    asked, (me, it) = allowed_pull()
    of = {"context": asked["context"], "grant": asked["context"]["grant"], "it": it["attrs"], "me": me["attrs"]}[where]
    del of[name]
    assert refused(asked, [me, it])


INJECTED = [
    'users/ada"',
    'users/ada" || true || "',
    'users/a::"b"',
    "users/ada\nusers/root",
    "users/ada\x00",
    "users/ad\u0430",
    "users/ad\u202ea",
    "users/\ud800",
    "users/" + "a" * 100_000,
    "users/../root",
    "users/ada'; DROP TABLE users; --",
    "users/Ada",
    "users/ada ",
    "",
]


@pytest.mark.parametrize("name", INJECTED, ids=range(len(INJECTED)))
def test_a_name_that_would_be_more_than_a_name_reaches_no_policy(name):
    ada, of = user(), organism()
    with pytest.raises((InvalidName, InvalidArgument)):
        entities.principal(replace(ada, name=name))
    with pytest.raises((InvalidName, InvalidArgument)):
        entities.principal(replace(ada, organisation=name.replace("users", "organisations")))
    for build in (
        lambda: entities.account(name),
        lambda: entities.organism(replace(of, owner=name)),
        lambda: entities.organism(replace(of, name=name.replace("users", "organisms"))),
        lambda: entities.version(replace(version(of), publisher=name), of),
        lambda: entities.request(request(), owners=[name], authors=[]),
        lambda: entities.request(request(), owners=[], authors=[name]),
        lambda: entities.grant(replace(grant(), user=name), owners=[]),
        lambda: entities.session(replace(session(), user=name), of, version(of)),
    ):
        with pytest.raises((InvalidName, InvalidArgument)):
            build()


@pytest.mark.parametrize("name", ['it"', 'it" || true', "it::x", "it\nx", "\u202eit", "i" * 100_000])
def test_an_id_that_reaches_cedar_all_the_same_is_data_and_not_policy(name):
    asked, (me, it) = allowed_pull()
    asked["resource"]["id"] = name
    assert refused(asked, [me, it])  # there is no such entity
    it["uid"]["id"] = name
    me["attrs"]["active"] = False
    assert refused(asked, [me, it])


@pytest.mark.parametrize(
    "roles",
    [["researcher"], [Role.RESEARCHER, "admin"], [None], ["root"], [b"admin"], 7],
)
def test_a_role_that_is_not_one_is_not_believed(roles):
    with pytest.raises((InvalidArgument, TypeError)):
        entities.principal(replace(user(), roles=roles))


FORGED = [
    {"uid": {"type": "Role", "id": "researcher"}, "attrs": {}, "parents": [{"type": "Role", "id": "admin"}]},
    {"uid": {"type": "Role", "id": "root"}, "attrs": {}, "parents": []},
    {"uid": {"type": "User", "id": "users/me"}, "attrs": {}, "parents": [{"type": "Role", "id": "admin"}]},
    {"uid": {"type": "Action", "id": "pull"}, "attrs": {}, "parents": [{"type": "Action", "id": "list"}]},
    {"uid": {"type": "Superuser", "id": "users/me"}, "attrs": {}, "parents": []},
]


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_an_entity_that_is_slipped_in_makes_the_call_a_no(forged):
    asked, given = allowed_pull()
    assert refused(asked, [*given, forged])
    row = next(row for row in rows() if row.action is Action.MANAGE_USERS and row.facts["roles"] == {Role.RESEARCHER})
    assert refused(row.request(), [*json.loads(row.entities()), forged])


# the folder


@pytest.mark.parametrize(
    "condition", ["resource.level * 9223372036854775807 > 1", "0 - 9223372036854775807 - resource.level > 0"]
)
def test_a_forbid_that_errs_denies_and_is_not_skipped(folder, condition):
    (folder / "local.cedar").write_text(FORBID.replace("CONDITION", condition))
    asked, given = allowed_pull()
    given[1]["attrs"]["level"] = 2
    decision = PolicySet.read(folder).decide(asked, json.dumps(given))
    assert (decision.allowed, decision.reasons) == (False, (FAULT,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("local.cedar", PERMIT),
        ("zz.cedar", PERMIT.replace("local-x", "never-x")),
        ("Never.cedar", PERMIT),
        ("n\u0435ver.cedar", PERMIT),
        (".hidden.cedar", PERMIT),
        ("never.cedar.cedar", PERMIT),
        ("local.cedar", PERMIT.replace("local-x", "access-pull")),
        ("local.cedar", FORBID.replace("local-x", "never-revoked").replace("CONDITION", "false")),
    ],
)
def test_a_file_of_ones_own_that_permits_or_takes_anothers_name_is_refused(folder, name, text):
    (folder / name).write_text(text)
    with pytest.raises(ConfigurationInvalid):
        PolicySet.read(folder)


def test_a_never_cedar_that_is_shadowed_or_swapped_is_refused(folder):
    shipped = folder / NEVER
    text = shipped.read_text()
    shipped.unlink()
    for make in (
        shipped.mkdir,
        lambda: shipped.symlink_to("/dev/zero"),
        lambda: shipped.symlink_to(NEVER),
        lambda: os.mkfifo(shipped),
        lambda: shipped.write_text(text.replace("\n", "\r\n")),
        lambda: shipped.write_text(text + "\n"),
        lambda: shipped.write_text("\ufeff" + text),
    ):
        make()
        with pytest.raises(ConfigurationInvalid, match=NEVER):
            PolicySet.read(folder)
        shipped.rmdir() if shipped.is_dir() and not shipped.is_symlink() else shipped.unlink()
    shipped.write_text(text)
    assert PolicySet.read(folder).digest == SOUND.digest


def test_a_linked_folder_is_what_it_was_when_it_was_read(folder, tmp_path):
    """Links are how some deployments mount files. Each file is read once, and its digest is that of what was read."""
    linked = tmp_path / "linked"
    linked.symlink_to(folder)
    (folder / "local.cedar").write_text(FORBID.replace("CONDITION", "true"))
    before = PolicySet.read(linked)
    other = tmp_path / "other"
    shutil.copytree(shipped_folder(), other)
    linked.unlink()
    linked.symlink_to(other)
    asked, given = allowed_pull()
    assert before.decide(asked, json.dumps(given)).reasons == ("local-x",)
    assert (before.digest, PolicySet.read(linked).digest) == (PolicySet.read(folder).digest, SOUND.digest)


def test_a_set_that_is_swapped_while_it_is_read_is_one_or_the_other_or_refused(folder):
    """The file that must be as shipped is the one that is parsed: it is not read a second time."""
    never, shipped = folder / NEVER, (shipped_folder() / NEVER).read_text()
    spare = folder / "never.spare"
    ended = threading.Event()

    def swap():
        while not ended.is_set():
            for text in ("", shipped):
                spare.write_text(text)
                spare.replace(never)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(40):
            try:
                assert PolicySet.read(folder).digest == SOUND.digest
            except ConfigurationInvalid as error:
                assert NEVER in error.message  # noqa: PT017 - either outcome is right
    finally:
        ended.set()
        thread.join()


DEEP = {
    "brackets": "(" * 5000 + "true" + ")" * 5000,
    "conjunctions": " && ".join(["true"] * 5000),
    "lists": "[" * 5000 + "]" * 5000 + " == []",
    "choices": "if true then " * 5000 + "true" + " else false" * 5000,
    "attributes": "context" + ".a" * 5000,
    "sums": "+".join(["1"] * 5000) + " > 2",
    "negations": "!" * 5000 + "true",
    "in a string": '"' + "(" * 5000 + '" == ""',
    "after a comment": "true // ;\r && " + "(" * 5000 + "true" + ")" * 5000,
}


@pytest.mark.parametrize("what", DEEP)
def test_a_policy_too_deep_to_parse_is_refused_and_the_process_lives(folder, what):
    (folder / "local.cedar").write_text(FORBID.replace("CONDITION", DEEP[what]))
    if what == "in a string":
        assert "local-x" in PolicySet.read(folder).forbids
        return
    with pytest.raises(ConfigurationInvalid):
        PolicySet.read(folder)


def test_more_files_than_anybody_reads_are_refused(folder):
    for number in range(65):
        (folder / f"local-{number}.cedar").write_text("")
    with pytest.raises(ConfigurationInvalid, match="65 policy files"):
        PolicySet.read(folder)
