"""What `mo` says to people where something is left to do, in the words that they would use."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from tests.support.stories import WHY, granted, published
from tests.support.terminal import typed


def test_the_newest_entries_come_first_and_the_way_to_the_others_is_said(world):
    size = world.person("aud").audit.checkpoint().size
    words = ("--identity", world.folder / "aud.json", "audit", "entries", "--count", "3")
    newest = [one["index"] for one in json.loads(typed(*words, "--json")[1])]
    assert newest == [size - 3, size - 2, size - 1]
    assert f"{size - 3} older: mo audit entries --start {size - 6} --count 3" in typed(*words)[1]
    out = typed(*words, "--start", "1")[1]
    assert "1 older: mo audit entries --start 0 --count 3" in out
    assert f"{size - 4} newer: mo audit entries --start 4 --count 3" in out
    assert "older" not in (out := typed(*words, "--start", "0", "--count", size)[1])
    assert "newer" not in out


def test_an_erratum_of_what_is_pulled_is_a_sentence(world):
    version, _files = published(world)
    granted(world, version)
    world.person("pia").organisms.erratum(version.name, text="Trained on the wrong split.")
    words = ("--identity", world.folder / "rosa.json", "pull", version.name)
    status, out, err = typed(*words)
    assert (status, err) == (0, f"mo: erratum: {version.name}: Trained on the wrong split.\n")
    assert version.digest in out
    status, out, err = typed(*words, "--json")
    assert (status, err, [one["text"] for one in json.loads(out)["errata"]]) == (0, "", ["Trained on the wrong split."])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("users", "deny-certificate", "abc", "--reason", "Lost."), "its SHA-256, 64 hex digits"),
        (("users", "invite", "x", "--organisation", "Bad Org!", "--role", "auditor"), "write organisations/example-lab"),
        (("organisms", "conditions", "talker", "--condition", "foo"), "'foo' is no condition; there are no-finetune"),
    ],
)
def test_a_wrong_form_is_answered_with_the_right_one(world, words, says):
    status, out, err = typed("--identity", world.folder / "admin.json", *words)
    assert (status > 0, out) == (True, "")
    assert says in " ".join(err.split())


def test_durations_are_shown_as_people_write_them(world):
    version, _files = published(world, level="CL3")
    organism = version.name.split("/versions")[0]
    asked = world.person("pia").organisms.set_conditions(organism, conditions=["publish-delay=7776000s", "time-limit=180000s"])
    assert asked.conditions
    shown = typed("--identity", world.folder / "pia.json", "organisms", "show", organism)[1]
    assert "publish-delay=90d" in shown
    assert "time-limit=180000s" in shown
    version, _files = published(world, level="CL3")
    request = world.person("rosa").access.request(
        version.name, "sample", purpose="replication", justification=WHY, duration=timedelta(days=2)
    )
    out = typed("--identity", world.folder / "rosa.json", "access", "show", request.name)[1]
    assert "2 days" in out
    assert "0:00:00" not in out
