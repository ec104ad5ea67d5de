"""The hazard table says what the mission says, and can only be made stricter."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ConfigurationInvalid
from model_organisms.records import Level, Rung
from model_organisms_registry.domain.hazard import (
    TABLE,
    Demands,
    HazardTable,
    LevelRules,
    demands,
    known,
    level_rules,
    tightened,
)

ASKED = [Rung.SAMPLE, Rung.PROBE, Rung.PULL]

# level, rung: approvals, distinct organisations, witness, forbidden, stated need
MISSION = {
    (1, "sample"): (0, False, False, False, False),
    (1, "probe"): (1, False, False, False, False),
    (1, "pull"): (1, False, False, False, False),
    (2, "sample"): (1, False, False, False, False),
    (2, "probe"): (1, False, False, False, False),
    (2, "pull"): (1, False, False, False, False),
    (3, "sample"): (2, True, False, False, False),
    (3, "probe"): (2, True, False, False, False),
    (3, "pull"): (2, True, False, False, True),
    (4, "sample"): (2, True, True, False, False),
    (4, "probe"): (2, True, True, False, False),
    (4, "pull"): (2, True, True, True, True),
}


@pytest.mark.parametrize(("level", "rung"), list(product(Level, ASKED)))
def test_the_shipped_table_is_the_missions(level, rung):
    found = demands(level, rung)
    stated = (
        found.approvals,
        found.distinct_organisations,
        found.witness,
        found.forbidden,
        found.needs_stated_need,
    )
    assert stated == MISSION[level, rung.name.lower()]


def test_the_rules_of_the_levels_are_the_missions():
    jail = [level_rules(level).jail_required for level in Level]
    marks = [level_rules(level).fingerprinted for level in Level]
    days = [level_rules(level).max_duration.days for level in Level]
    assert (jail, marks, days) == ([False, True, True, True], [False, True, True, True], [365, 180, 90, 30])


@given(st.one_of(st.integers().filter(lambda n: n not in {1, 2, 3, 4}), st.none(), st.text(), st.floats(allow_nan=True)))
def test_what_is_not_a_level_is_cl4(level):
    assert known(level) is Level.CL4
    assert demands(level, Rung.PULL).forbidden
    assert level_rules(level) == level_rules(Level.CL4)


def at_least(stricter, looser):
    """Independent of the table's own comparison."""
    for field in fields(stricter):
        new, old = getattr(stricter, field.name), getattr(looser, field.name)
        fewer = field.name.endswith("may_approve") or isinstance(new, timedelta)
        if (new > old) if fewer else (new < old):
            return False
    return True


OVERRIDE = st.dictionaries(
    st.tuples(st.sampled_from(["CL1", "CL2", "CL3", "CL4"]), st.sampled_from(["", ".sample", ".probe", ".pull"])).map("".join),
    st.dictionaries(
        st.sampled_from([*(f.name for f in fields(Demands)), *(f.name for f in fields(LevelRules)), "max_duration_s", "x"]),
        st.one_of(st.booleans(), st.integers(-1, 12), st.integers(0, 10**8)),
        max_size=3,
    ),
    max_size=4,
)


@given(OVERRIDE)
def test_no_configuration_loosens_a_cell_or_makes_a_higher_one_easier(overrides):
    try:
        table = tightened(TABLE, overrides)
    except ConfigurationInvalid:
        return
    for level, rung in product(Level, ASKED):
        assert at_least(table.of(level, rung), TABLE.of(level, rung))
        assert at_least(table.rules_of(level), TABLE.rules_of(level))
        if level < Level.CL4:
            assert at_least(table.of(level + 1, rung), table.of(level, rung))
        if rung < Rung.PULL:
            assert at_least(table.of(level, Rung(rung + 1)), table.of(level, rung))
    assert table.of(Level.CL4, Rung.PULL).forbidden


def test_a_demand_on_a_low_cell_is_carried_to_all_above_it():
    table = tightened(TABLE, {"CL2.sample": {"approvals": 3}, "CL3": {"max_duration_s": 3600}})
    assert table.of(Level.CL1, Rung.PULL).approvals == 1
    assert {table.of(level, rung).approvals for level, rung in product([2, 3, 4], ASKED)} == {3}
    assert table.rules_of(4).max_duration == timedelta(hours=1)
    assert table.rules_of(2).max_duration == TABLE.rules_of(2).max_duration


@pytest.mark.parametrize(
    "overrides",
    [
        {"CL4.pull": {"forbidden": False}},
        {"CL3.sample": {"approvals": 1}},
        {"CL4.sample": {"own_organisation_may_approve": True}},
        {"CL4": {"jail_required": False}},
        {"CL1": {"max_duration_s": 366 * 86_400}},
        {"CL1": {"max_duration_s": 0}},
        {"CL1.sample": {"approvals": True}},
        {"CL1.sample": {"approvals": 100}},
        {"CL1.sample": {"jail_required": True}},
        {"CL1.describe": {"approvals": 1}},
        {"CL5.pull": {}},
        {"cl1": {}},
        {"": {}},
        {"CL1": {"max_duration": 60}},
        {"CL1.pull": {"__class__": 1}},
    ],
)
def test_what_would_loosen_or_means_nothing_is_refused(overrides):
    with pytest.raises(ConfigurationInvalid):
        tightened(TABLE, overrides)


def test_a_table_that_is_easier_above_than_below_cannot_be_made():
    cells = dict(TABLE.demands) | {(Level.CL1, Rung.SAMPLE): Demands(approvals=5)}
    with pytest.raises(ConfigurationInvalid, match=r"CL1\.probe"):
        HazardTable(cells, TABLE.rules)
