"""The tree drawn at the top of errors.py is the tree of classes below it, and the reasons on the wire are theirs."""

from __future__ import annotations

import inspect
import re

import grpc
import pytest
from model_organisms import errors

ROOT = errors.ModelOrganismsError
CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, ROOT)}
DRAWN = re.compile(r"^(?P<indent>[│ ]*)(?:├── |└── )?(?P<name>[A-Z]\w+)(?: {2,}(?P<what>.+))?$")


def drawing():
    """Yield class, parent and what is said of it, as drawn."""
    above, margin = [], None
    for line in inspect.getdoc(errors).splitlines():
        found = DRAWN.match(line.rstrip())
        if found is None or found["name"] not in CLASSES:
            continue
        column = line.index(found["name"])
        margin = column if margin is None else margin
        depth = (column - margin) // 4
        above = [*above[:depth], found["name"]]
        yield found["name"], above[-2] if depth else None, found["what"]


def test_the_tree_drawn_is_the_tree_of_classes():
    drawn = [(name, parent) for name, parent, _ in drawing()]
    real = {name: value.__mro__[1].__name__ for name, value in CLASSES.items() if value is not ROOT}
    assert drawn[0] == ("ModelOrganismsError", None)
    assert dict(drawn[1:]) == real
    assert len(drawn) == len(CLASSES)


@pytest.mark.parametrize(("name", "what"), [(name, what) for name, _, what in drawing() if what])
def test_what_the_drawing_says_is_what_the_class_says(name, what):
    said = inspect.getdoc(CLASSES[name]).splitlines()[0].rstrip(".")
    assert said.lower() == what.rstrip(".").lower()


def test_each_class_owns_its_reason_and_a_status_that_exists():
    reasons = [value.__dict__["reason"] for value in CLASSES.values()]
    assert len(set(reasons)) == len(reasons)
    assert {value.status for value in CLASSES.values()} <= {code.name for code in grpc.StatusCode}
    assert {value.reason: value for value in CLASSES.values()} == errors.BY_REASON
