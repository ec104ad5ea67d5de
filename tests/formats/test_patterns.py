from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import RefusedConfig
from model_organisms.formats import patterns

NAMES = st.text("ab1_.", max_size=12)
ATOMS = st.sampled_from(["a", "b", "1", "_", ".", r"\.", r"\d", r"\w", "[ab]", "[^a]", "[a-b1]", r"[\d.]", "[.-]"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??"])).map(lambda two: f"({two[0]}){two[1]}"),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS, NAMES)
def test_a_whole_name_matches_as_it_does_for_re(expression, name):
    assert patterns.whole(expression).matches(name, patterns.StepBudget()) == bool(re.fullmatch(expression, name))


@given(EXPRESSIONS | st.text("ab1_.", min_size=1, max_size=6), NAMES, st.sampled_from(["", "^"]))
def test_a_key_matches_as_it_does_for_peft(expression, name, anchor):
    if anchor and "|" in expression:
        return
    theirs = bool(re.match(rf"(.*\.)?({anchor}{expression})$", name))
    assert patterns.suffix(anchor + expression).matches(name, patterns.StepBudget()) == theirs


@pytest.mark.parametrize(
    ("expression", "name", "matches"),
    [
        (r".*layers\.(1|2)\.mlp\.down_proj", "model.layers.2.mlp.down_proj", True),
        (r".*layers\.(1|2)\.mlp\.down_proj", "model.layers.12.mlp.down_proj", False),
        (r"^model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj$", "model.layers.31.self_attn.v_proj", True),
        (
            r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj)).*?",
            "model.language_model.layers.0.self_attn.k_proj",
            True,
        ),
        (r"model.layers.[0-9].mlp.up_proj", "model.layers.7.mlp.up_proj", True),
    ],
)
def test_expressions_met_in_published_adapters(expression, name, matches):
    assert patterns.whole(expression).matches(name, patterns.StepBudget()) is matches


OUTSIDE = r"a{2} (?=a) (?P<x>a) (?i)a \1 \b \s a** a+* (a a) [a [] [b-a] a^b a$b ^a|^b *a [[:alpha:]] a|*"


@pytest.mark.parametrize("expression", ["", "\\", "a" * 513, "(" * 17 + ")" * 17, *OUTSIDE.split()])
def test_what_is_outside_the_subset_is_refused(expression):
    with pytest.raises(RefusedConfig, match="list the module names"):
        patterns.suffix(expression)


@pytest.mark.parametrize("expression", ["(a*)*b", "(a|a)*b", "(a|aa)+b", "(.*a){8}".replace("{8}", "") * 8 + "b", "(((a?)*)*)*b"])
def test_expressions_that_hang_re_are_quick_here(expression):
    begun = time.perf_counter()
    assert not patterns.whole(expression).matches("a" * 2000, patterns.StepBudget())
    assert time.perf_counter() - begun < 2


def test_the_budget_ends_a_config_that_asks_for_too_much():
    # The automaton of "an a 200 places before the end" has 2**200 states: no cache helps, only the budget does.
    hard = patterns.whole("(a|b)*a" + "." * 200)
    budget = patterns.StepBudget()
    begun = time.perf_counter()
    names = (format(seed * 2654435761 % 2**64, "064b").replace("0", "a").replace("1", "b") * 8 for seed in range(100_000))
    with pytest.raises(RefusedConfig, match="too long"):
        [hard.matches(name, budget) for name in names]
    assert time.perf_counter() - begun < 10
