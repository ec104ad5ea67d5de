"""Slots of keys and values: what leaves is zeros, what grows keeps what it held, and no budget is passed."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.sampling.cache import STEP, Cache, rounded

SHAPES = [(2, 4, 4), (1, 8, 2)]
TOKEN = sum(heads * (key + value) for heads, key, value in SHAPES) * 4


def cache(tokens=10_000):
    return Cache(SHAPES, torch.float32, torch.device("cpu"), tokens * TOKEN)


def write(held, first, positions, value):
    """Write one number at some positions of slots that lie side by side, and give what is read."""
    places = torch.tensor(positions)
    held.aim(first, places, rounded(int(places.max()) + 1))
    seen = []
    for layer, (heads, key, size) in enumerate(SHAPES):
        shape = (len(positions), heads, len(positions[0]))
        seen.append(held.update(torch.full((*shape, key), value), torch.full((*shape, size), value), layer))
    return seen


def contents(held):
    return [tensor for pair in held._held for tensor in pair]


def test_what_is_written_is_read_in_its_slot_and_nowhere_else():
    held = cache()
    held.reserve(3, 10, used=0, written=0)
    for keys, values in write(held, 1, [[0, 1], [4, 5]], 7.0):
        for tensor in (keys, values):
            assert tensor.shape[0] == 2
            assert tensor.shape[2] == STEP
            assert bool((tensor[0, :, :2] == 7).all())
            assert bool((tensor[1, :, 4:6] == 7).all())
    assert all(int((tensor[0] != 0).sum()) == 0 for tensor in contents(held))
    assert all(int((tensor != 0).any(-1).any(-1).sum()) == 4 for tensor in contents(held))


def test_who_leaves_or_moves_leaves_zeros_behind():
    held = cache()
    held.reserve(2, 10, used=0, written=0)
    write(held, 0, [[0, 1, 2]], float("nan"))
    write(held, 1, [[0, 1, 2]], 5.0)
    held.clear(0, 3)
    assert all(bool((tensor[0] == 0).all()) for tensor in contents(held))
    held.move(1, 0, 3)
    assert all(bool((tensor[0, :3] == 5).all()) and bool((tensor[1] == 0).all()) for tensor in contents(held))
    held.release()
    assert held.bytes == 0


def test_what_grows_leaves_zeros_where_it_was():
    held = cache()
    held.reserve(2, 10, used=0, written=0)
    write(held, 0, [[0, 1, 2], [0, 1, 2]], 5.0)
    before = contents(held)
    held.reserve(2, STEP + 1, used=2, written=3)
    assert all(bool((tensor[:2, :3] == 5).all()) for tensor in contents(held))
    assert not any(bool(tensor.any()) for tensor in before)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 400)), min_size=1, max_size=8), st.integers(400, 4000))
@settings(deadline=None, max_examples=60)
def test_growing_keeps_what_is_held_within_the_budget(asked, budget):
    held = cache(budget)
    used = written = 0
    for more, longer in asked:
        slots, tokens = max(more, used), max(longer, written)
        if not held.fits(slots, tokens):
            continue
        held.reserve(slots, tokens, used=used, written=written)
        assert held.bytes <= held.budget
        for slot in range(used):
            assert all(bool((tensor[slot, : slot + 1] == slot + 1).all()) for tensor in contents(held))
        for slot in range(used, slots):
            if slot < tokens:
                write(held, slot, [list(range(slot + 1))], float(slot + 1))
                used, written = slot + 1, max(written, slot + 1)
            else:
                break
