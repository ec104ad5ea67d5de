"""What a model or a registry said is shown, never obeyed."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.cli import render
from model_organisms.cli.render import inert

from tests.support.terminal import Terminal

ATTACKS = {
    "clear the screen": "\x1b[2J",
    "eight-bit control sequence": "\x9b31m",
    "set the window's title": "\x1b]0;owned\x07",
    "link to elsewhere": "\x1b]8;;http://example.org\x1b\\click\x1b]8;;\x1b\\",
    "overwrite the line": "safe\rgone",
    "erase backwards": "safe\b\b\b\bgone",
    "reverse what is read": "\u202egnp.exe",
    "isolate": "\u2066hidden\u2069",
    "zero width": "a\u200bb\ufeffc",
    "tag characters": "\U000e0041\U000e0042",
    "line separator": "one\u2028two",
    "private use": "\ue000",
    "half of a pair": "\ud800",
    "not a character": "\uffff",
    "delete": "\x7f",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_acts_on_a_terminal(attack, capsys):
    shown = inert(ATTACKS[attack])
    assert "\\" in shown
    assert shown.isprintable()
    render.facts([("Answer", ATTACKS[attack])])
    render.table("Answers", ("Answer",), [(ATTACKS[attack],)])
    printed = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in printed)


@given(st.text(st.characters()))
def test_only_newlines_and_tabs_are_left_to_act(text):
    shown = inert(text)
    assert all(unicodedata.category(c)[0] != "C" for c in shown if c not in "\n\t")
    shown.encode()  # lone surrogates are escaped too, so this does not raise


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_in_any_language_stays_as_it_is(text):
    assert inert(text) == text


def test_markup_is_data(capsys):
    render.facts([("Answer", "[bold red]loud[/] [link=http://example.org]here[/link] :skull:")])
    assert "[bold red]loud[/] [link=http://example.org]here[/link] :skull:" in capsys.readouterr().out


def test_json_is_ascii_and_holds_the_text_unchanged(capsys):
    render.emit({"text": ATTACKS["clear the screen"] + ATTACKS["reverse what is read"]})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    assert json.loads(printed)["text"] == ATTACKS["clear the screen"] + ATTACKS["reverse what is read"]


def test_a_row_that_stands_out_is_red_on_a_terminal_and_plain_in_a_pipe(monkeypatch, capsys):
    rows = [("layers", "agrees"), ("rank", "DIFFERS")]
    render.table("Claims", ("Of", ""), rows, red=lambda row: row[-1] == "DIFFERS")
    assert "\x1b" not in capsys.readouterr().out
    shown = Terminal()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdout", shown)
    render.table("Claims", ("Of", ""), rows, red=lambda row: row[-1] == "DIFFERS")
    lines = {name: line for line in shown.getvalue().splitlines() for name in ("layers", "rank") if name in line}
    assert "\x1b[1;31m" in lines["rank"]
    assert "\x1b[1;31m" not in lines["layers"]
