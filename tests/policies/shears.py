"""The shipped policy set with one policy cut out of its text."""

from __future__ import annotations

import re
from functools import cache

from model_organisms_registry.gate.cedar import SCHEMA, SHIPPED, PolicySet, shipped_folder

_POLICY = re.compile(r'^@id\("(?P<id>[^"]+)"\)\n(?:.*\n)*?(?:.*;)$', re.MULTILINE)


@cache
def whole():
    return PolicySet.read()


@cache
def without(identifier):
    folder = shipped_folder()
    texts = {name: (folder / name).read_text() for name in SHIPPED}
    cut = {name: _POLICY.sub(lambda found: "" if found["id"] == identifier else found[0], text) for name, text in texts.items()}
    left = PolicySet(cut, (folder / SCHEMA).read_text())
    assert set(whole().order) - set(left.order) == {identifier}
    return left
