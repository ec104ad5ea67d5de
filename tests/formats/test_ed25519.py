"""Signatures under honest keys, and under the keys of small order that take signatures by anybody."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.formats import ed25519

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
ANYBODYS = (1).to_bytes(32, "little") + bytes(32)
"""R the neutral element, S nothing: no key was needed to write it."""


def points():
    """Every point of the curve whose order divides 8, found by halving the neutral element's fibre, not by a list."""
    found = {(0, 1), (0, P - 1)}  # order 1 and 2
    root = pow(2, (P - 1) // 4, P)  # of -1
    found |= {(root, 0), (P - root, 0)}  # order 4
    # Order 8: doubling gives y = 0, which is y^2 = -x^2; with the curve's equation, d*y^4 + 2*y^2 - 1 = 0.
    square = pow(1 + D, (P + 3) // 8, P)
    square = square if square * square % P == (1 + D) % P else square * root % P
    for sign in (1, -1):
        y2 = (-1 + sign * square) * pow(D, -1, P) % P
        y = pow(y2, (P + 3) // 8, P)
        y = y if y * y % P == y2 else y * root % P
        if y * y % P == y2:
            x2 = (y2 - 1) * pow(D * y2 + 1, -1, P) % P
            x = pow(x2, (P + 3) // 8, P)
            x = x if x * x % P == x2 else x * root % P
            found |= {(a, b) for a in (x, P - x) for b in (y, P - y)}
    return found


def added(one, two):
    (x1, y1), (x2, y2) = one, two
    t = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def written(y, top):
    return (y | top << 255).to_bytes(32, "little")


WRITINGS = sorted(
    {written(y, top) for _, y in points() for top in (0, 1)} | {written(P + y, top) for y in (0, 1) for top in (0, 1)}
)


def test_the_points_are_all_there_are():
    assert len(points()) == 8
    for point in points():
        assert -(point[0] ** 2) + point[1] ** 2 - 1 - D * point[0] ** 2 * point[1] ** 2 == 0 or (
            (-(point[0] ** 2) + point[1] ** 2 - 1 - D * point[0] ** 2 * point[1] ** 2) % P == 0
        )
        doubled = point
        for _ in range(3):
            doubled = added(doubled, doubled)
        assert doubled == (0, 1)
    assert {y for _, y in points()} | {P, P + 1} == ed25519.SMALL_ORDER


@pytest.mark.parametrize("key", WRITINGS, ids=lambda key: key.hex()[:6] + key.hex()[-2:])
def test_a_key_of_small_order_verifies_nothing(key):
    assert not any(ed25519.verifies(key, ANYBODYS, b"message %d" % number) for number in range(64))


def test_the_library_by_itself_takes_anybodys_signature_under_one():
    Ed25519PublicKey.from_public_bytes(written(1, 0)).verify(ANYBODYS, b"whatever is said")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.integers(0, 511))
def test_an_honest_key_verifies_its_own_signatures_and_no_others(seed, message, bit):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public, signature = key.public_key().public_bytes_raw(), bytearray(key.sign(message))
    assert ed25519.verifies(public, bytes(signature), message)
    assert not ed25519.verifies(public, bytes(signature), message + b"x")
    signature[bit // 8] ^= 1 << bit % 8
    assert not ed25519.verifies(public, bytes(signature), message)


@pytest.mark.parametrize("key", [b"", bytes(31), b"\xff" * 32, b"x" * 33])
def test_what_is_no_key_verifies_nothing(key):
    assert not ed25519.verifies(key, ANYBODYS, b"")
