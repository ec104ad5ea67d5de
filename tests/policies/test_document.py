"""policies/README.md says what the policies are, and is written again when they change."""

from __future__ import annotations

import re

from model_organisms_registry.gate.cedar import PolicySet

from tests.policies.document import BETWEEN, PAGE, tables


def test_the_tables_of_the_page_are_those_of_the_policies():
    (shown,) = BETWEEN.findall(PAGE.read_text())
    assert shown == tables(), "run: python -m tests.policies.document"


def test_every_policy_is_named_on_the_page_once():
    named = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert named == list(PolicySet.read().order)
