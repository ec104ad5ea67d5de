"""Who may share a cell with whom: not from CL3 on, and not who would keep the others waiting."""

from dataclasses import replace

import pytest
from model_organisms.errors import CellUnavailable
from model_organisms.records import Level
from model_organisms_registry.domain import sandbox

from tests.domain.cast import version


@pytest.mark.parametrize("level", [Level.CL1, Level.CL2, Level.CL3, Level.CL4])
def test_from_cl3_on_a_session_has_its_cell_alone(level):
    sandbox.check_company(level, alone=True)
    if level >= Level.CL3:
        assert not sandbox.shares(level)
        with pytest.raises(CellUnavailable, match=f"At {level.name} a session has its cell alone"):
            sandbox.check_company(level, alone=False)
    else:
        assert sandbox.shares(level)
        sandbox.check_company(level, alone=False)


def adapters(count, rank, parameters):
    (fact,) = version().facts
    return (replace(fact, ranks=(1, rank), parameters=parameters),) * count


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        (adapters(1, 32, 275_000_000), 550 << 20),  # every linear layer of 14 billion numbers, in half precision
        (adapters(2, 256, 10_000_000), 80 << 20),
        (adapters(1, 1, 4_000), 1 << 30),
    ],
)
def test_what_is_taken_in_quickly_shares_a_cell(facts, size):
    assert not sandbox.slow_to_load(facts, size=size)


@pytest.mark.parametrize(
    ("facts", "size"),
    [
        (adapters(1, 64, 275_000_000), 550 << 20),
        (adapters(12, 1024, 1_000_000), 48 << 20),  # froze its neighbours for four seconds
        (adapters(1, 513, 4_000), 16 << 10),
        (adapters(1, 1, 4_000), (1 << 30) + 1),  # training checkpoints are hashed too
    ],
)
def test_what_would_keep_its_neighbours_waiting_has_a_cell_of_its_own(facts, size):
    assert sandbox.slow_to_load(facts, size=size)
