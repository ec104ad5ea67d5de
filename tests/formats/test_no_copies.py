"""Reading a file of weights leaves no copy of them in freed memory: none is made, or it is wiped."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from model_organisms.formats.content import check_content
from model_organisms.formats.facts import gram
from model_organisms.formats.paths import WEIGHTS, FileKind
from model_organisms.formats.tensors import Tensor, read_tensors

from tests.support.adapters import pack_tensors

A, B = (f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight" for half in "AB")
LITTLE = 8 << 10
"""Bytes: far less than numpy's buffer of 8,192 values, or the end of a file in which a zip directory may lie."""


def weights(dtype="float32", shift=0):
    """Make a file whose values begin `shift` bytes off, and give its values as they are after the cast."""
    drawn = np.random.default_rng(3).standard_normal
    values = {A: drawn((4, 9000)).astype("f4"), B: drawn((9000, 4)).astype("f4")}
    values[A][0, :4] = [0.0, -0.0, 6e-8, -3e-6]  # subnormal in float16
    if dtype == "float16":
        values = {name: value.astype("f2").astype("f4") for name, value in values.items()}
    if dtype == "bfloat16":
        values = {name: (value.view("u4") & np.uint32(0xFFFF_0000)).view("f4") for name, value in values.items()}
    memory = memoryview(bytearray(shift) + pack_tensors(values, dtype=dtype))
    return memory[shift:].toreadonly(), values


def most_taken(call, times=5):
    """Say how many bytes a call takes beside what there was, at most, each time that it is made.

    What other threads of the tests take meanwhile is counted too; the least of several times is what the call takes.
    """
    return min(_taken_once(call) for _ in range(times))


def _taken_once(call):
    gc.disable()  # what is swept up meanwhile may take memory, too; and to sweep before takes a second in a process that is large
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("shift", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_are_written_where_they_are_wanted_and_nowhere_else(dtype, shift):
    data, values = weights(dtype, shift)
    for name, tensor in read_tensors(data).tensors.items():
        out = np.full((4, 9000), np.nan, np.float32)
        tensor.write(out)  # once before it is measured, so that numpy has loaded what it loads
        assert most_taken(lambda out=out, tensor=tensor: tensor.write(out)) < LITTLE
        wanted = values[name] if name == A else values[name].T
        assert out.tobytes() == np.ascontiguousarray(wanted).tobytes()


def test_the_end_of_a_file_is_looked_at_where_it_lies():
    data, _ = weights()
    check_content(WEIGHTS, data, FileKind.WEIGHTS)
    assert most_taken(lambda: check_content(WEIGHTS, data, FileKind.WEIGHTS)) < LITTLE


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_norms_wipe_the_copies_that_they_are_made_from(monkeypatch, dtype, shift):
    data, _ = weights(dtype, shift)
    given, make = [], Tensor.blocks
    monkeypatch.setattr(Tensor, "blocks", lambda tensor: (given.append(block) or block for block in make(tensor)))
    for tensor in read_tensors(data).tensors.values():
        before = bytes(tensor.data)
        assert gram(tensor).any()
        assert bytes(tensor.data) == before
    assert given
    for block in given:
        copied = not np.shares_memory(block, np.frombuffer(data, np.uint8))
        assert copied is not bool(block.any())
        assert copied or dtype == "float32"
