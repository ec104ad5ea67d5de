"""Marks: as large as they say, found again whatever was done to the copy, and never laid at an innocent's door."""

from __future__ import annotations

import hashlib
import hmac
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.formats.fingerprint import EPS, Factors, commitment, detect, mark, mark_key

SECRET = b"\x07" * 32
WIDTH, RANK, MODULES = 1024, 8, 12
CHIPS = WIDTH * RANK * MODULES
KEYS = {f"pulls/{n}": mark_key(SECRET, f"pulls/{n}") for n in range(20)}
LEAKED = "pulls/0"


def make_adapter(modules=MODULES, width=WIDTH, rank=RANK, seed=0) -> dict[str, Factors]:
    """An adapter whose product is 2 % of a base weight of standard deviation 0.02."""
    rng = np.random.default_rng(seed)
    adapter = {}
    for n in range(modules):
        a = rng.normal(0, 1 / math.sqrt(width), (rank, width))
        b = rng.normal(0, 1, (width, rank))
        b *= 0.02 * 0.02 * width / np.linalg.norm(b @ a)
        adapter[f"layers.{n}"] = Factors(a.astype(np.float32), b.astype(np.float32))
    return adapter


def marked_for(adapter, pull) -> dict[str, Factors]:
    return {name: Factors(a, mark(a, b, key=mark_key(SECRET, pull), module=name)) for name, (a, b) in adapter.items()}


ORIGINAL = make_adapter()
COPY = marked_for(ORIGINAL, LEAKED)


def bf16(values) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def quantised(values, levels) -> np.ndarray:
    step = np.abs(values).max(axis=1, keepdims=True) / levels
    return (np.round(values / step) * step).astype(np.float32)


def each(adapter, change) -> dict[str, Factors]:
    return {name: Factors(*change(a, b)) for name, (a, b) in adapter.items()}


def truncated(a, b, rank=4):
    left, strengths, right = np.linalg.svd(np.linalg.qr(b)[1] @ np.linalg.qr(a.T)[1].T)
    return right[:rank] @ np.linalg.qr(a.T)[0].T, np.linalg.qr(b)[0] @ left[:, :rank] * strengths[:rank]


def refactored(a, b):
    turn = np.random.default_rng(1).normal(size=(RANK, RANK))
    return np.linalg.inv(turn) @ a, b @ turn


def averaged(count) -> dict[str, Factors]:
    copies = [marked_for(ORIGINAL, f"pulls/{n}") for n in range(count)]
    return {name: Factors(factors.a, sum(copy[name].b for copy in copies) / count) for name, factors in ORIGINAL.items()}


def merged(adapter, cast) -> dict[str, np.ndarray]:
    """What a leaker publishes who adds the adapter to the base and casts; whoever has the base takes it off again."""
    rng = np.random.default_rng(2)
    difference = {}
    for name, (a, b) in adapter.items():
        base = rng.normal(0, 0.02, (WIDTH, WIDTH)).astype(np.float32)
        difference[name] = cast(base + b @ a) - base
    return difference


# Share of the best possible score, the square root of the number of chips; seen, with these seeds, a little above each.
@pytest.mark.parametrize(
    ("suspect", "share"),
    [
        (lambda: COPY, 0.995),
        (lambda: each(COPY, lambda a, b: (bf16(a), bf16(b))), 0.97),
        (lambda: each(COPY, lambda a, b: (quantised(a, 127), quantised(b, 127))), 0.85),
        (lambda: each(COPY, refactored), 0.995),
        (lambda: each(COPY, truncated), 0.55),
        (lambda: each(COPY, lambda a, b: (a * 0.3, b)), 0.995),
        (lambda: {name: COPY[name] for name in list(COPY)[:3]}, 0.995),
        (lambda: averaged(10), 0.28),
        (lambda: merged(COPY, bf16), 0.7),
        (lambda: merged(COPY, lambda values: quantised(values, 127)), 0.22),
    ],
    ids=["exact", "bf16", "int8", "refactored", "rank 4", "scaled", "a quarter", "average of 10", "merged bf16", "merged int8"],
)
def test_the_right_copy_is_named(suspect, share):
    verdict = detect(suspect(), ORIGINAL, KEYS)
    assert verdict.scores[LEAKED] >= share * math.sqrt(verdict.chips)
    assert verdict.scores[LEAKED] >= 9
    assert LEAKED in verdict.accused


def test_all_who_averaged_are_named_and_nobody_else():
    verdict = detect(averaged(10), ORIGINAL, KEYS)
    assert set(verdict.accused) == {f"pulls/{n}" for n in range(10)}


def test_one_leaker_is_named_alone():
    assert detect(COPY, ORIGINAL, KEYS).accused == (LEAKED,)
    assert detect(COPY, ORIGINAL, KEYS).chips == CHIPS


def test_the_original_and_an_unrelated_adapter_accuse_nobody():
    for suspect in (ORIGINAL, each(ORIGINAL, lambda a, b: (bf16(a), bf16(b))), make_adapter(seed=5)):
        assert detect(suspect, ORIGINAL, KEYS).accused == ()


SMALL = make_adapter(modules=3, width=48, rank=3, seed=3)
STRANGERS = {f"strangers/{n}": mark_key(b"another secret", f"strangers/{n}") for n in range(400)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    noise=st.sampled_from([0.0, 1e-6, 0.01, 1.0, 100.0]),
    kind=st.sampled_from(["normal", "sparse", "heavy", "constant"]),
    gain=st.sampled_from([0.0, -1.0, 0.5, 1.0]),
    colluders=st.integers(0, 3),
)
def test_no_innocent_is_accused_whatever_was_done_to_the_file(seed, noise, kind, gain, colluders):
    """Four hundred innocents, whose keys the file was made without: none reaches tau, and few come near."""
    rng = np.random.default_rng(seed)
    draw = {
        "normal": rng.normal,
        "sparse": lambda size: rng.normal(size=size) * (rng.random(size) < 0.01),
        "heavy": lambda size: rng.standard_cauchy(size=size),
        "constant": lambda size: np.full(size, 1.0),
    }[kind]
    suspect = {}
    for name, (a, b) in SMALL.items():
        product = b @ a
        copies = [mark(a, b, key=KEYS[f"pulls/{n}"], module=name) @ a for n in range(colluders)]
        suspect[name] = gain * (sum(copies) / colluders if copies else product)
        suspect[name] = suspect[name] + noise * np.linalg.norm(product) / 48 * draw(size=(48, 48))
    verdict = detect(suspect, SMALL, STRANGERS)
    assert verdict.accused == ()
    scores = np.array(list(verdict.scores.values()))
    # 400 tests of Pr[z >= t] <= exp(-t^2/2); 3.5 standard deviations of slack.
    for limit in (1.5, 2.5):
        bound = math.exp(-(limit**2) / 2)
        assert np.mean(scores >= limit) <= bound + 3.5 * math.sqrt(bound / len(scores))


def test_scores_of_innocents_are_spread_as_chance_has_it():
    verdict = detect(COPY, ORIGINAL, {f"x{n}": mark_key(b"none", f"x{n}") for n in range(300)})
    scores = np.array(list(verdict.scores.values()))
    assert abs(scores.mean()) < 0.25
    assert 0.8 < scores.std() < 1.2


def test_the_threshold_grows_with_the_number_of_tests():
    few, many = (detect(COPY, ORIGINAL, KEYS, tests=tests).tau for tests in (20, 10**6))
    assert few == pytest.approx(math.sqrt(2 * math.log(20 / 1e-9)))
    assert many == pytest.approx(math.sqrt(2 * math.log(10**6 / 1e-9)))
    assert detect(COPY, ORIGINAL, KEYS).tau == few


shapes = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000), eps=st.sampled_from([0.003, 0.01, 0.1]), deficient=st.booleans())
def test_a_mark_is_as_large_as_it_says_and_stays_in_the_rank(shape, seed, eps, deficient):
    rank, width_in, width_out = shape
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(rank, width_in)), rng.normal(size=(width_out, rank))
    if deficient:
        a[-1] = a[0]
    marked = mark(a, b, key=b"\x01" * 32, module="m", eps=eps)
    assert marked.shape == b.shape
    product, moved = b @ a, marked.astype(np.float64) @ a
    size = np.linalg.norm(moved - product) / np.linalg.norm(product)
    assert size == pytest.approx(eps, rel=0.01)


def test_a_module_that_does_nothing_is_left_as_it_is():
    a, b = np.ones((4, 10), np.float32), np.zeros((6, 4), np.float32)
    assert np.array_equal(mark(a, b, key=b"\x01" * 32, module="m"), b)
    verdict = detect({"m": Factors(a, b)}, {"m": Factors(a, b)}, KEYS)
    assert (verdict.chips, verdict.accused) == (0, ())


def test_a_mark_depends_on_key_and_module_alone():
    a, b = ORIGINAL["layers.0"]
    first = mark(a, b, key=KEYS["pulls/0"], module="layers.0")
    assert np.array_equal(first, mark(a, b, key=KEYS["pulls/0"], module="layers.0"))
    for key, module in ((KEYS["pulls/1"], "layers.0"), (KEYS["pulls/0"], "layers.1")):
        assert not np.array_equal(first, mark(a, b, key=key, module=module))


def test_a_mark_does_not_depend_on_how_the_product_is_factored():
    """Detection starts from the published factors, but the mark itself is the product's."""
    a, b = (part.astype(np.float64) for part in ORIGINAL["layers.0"])
    turned_a, turned_b = refactored(a, b)
    first, second = (
        np.asarray(mark(x, y, key=b"\x01" * 32, module="m"), np.float64) @ x for x, y in ((a, b), (turned_a, turned_b))
    )
    assert np.linalg.norm(first - second) < 0.01 * EPS * np.linalg.norm(b @ a)


def test_keys_and_commitments_are_as_the_format_says():
    assert mark_key(SECRET, "pulls/1") == hmac.new(SECRET, b"pulls/1", hashlib.sha256).digest()
    assert commitment(b"k" * 32, "pulls/1") == hashlib.sha256(b"fp-commit/v1" + b"k" * 32 + b"pulls/1").hexdigest()


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidArgument, match="no module"):
        detect({"other": COPY["layers.0"]}, ORIGINAL, KEYS)
    with pytest.raises(InvalidArgument, match="another shape"):
        detect({"layers.0": np.zeros((5, 5))}, ORIGINAL, KEYS)
    with pytest.raises(InvalidArgument, match="another shape"):
        detect({"layers.0": np.zeros((5, WIDTH))}, ORIGINAL, KEYS)
    with pytest.raises(InvalidArgument, match="mark_key"):
        mark(*COPY["layers.0"], key=b"short", module="m")
