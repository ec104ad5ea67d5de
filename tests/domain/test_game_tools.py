"""What a question in an auditing game takes, held against what a player has."""

from __future__ import annotations

import pytest
from model_organisms import errors
from model_organisms.records import Tool
from model_organisms_registry.domain import tools

BOTH = (Tool.SAMPLE, Tool.PROBE)


@pytest.mark.parametrize("has", [(Tool.SAMPLE,), (Tool.SAMPLE, Tool.SYSTEM), BOTH, (Tool.PROBE,), tuple(Tool), ()])
@pytest.mark.parametrize("needed", [{Tool.SAMPLE}, {Tool.SAMPLE, Tool.SYSTEM}, {Tool.PROBE}, {Tool.PROBE, Tool.SYSTEM}, set()])
def test_a_question_takes_tools_that_one_has_and_nothing_beyond_them(has, needed):
    with pytest.raises(errors.Denied, match="No game gives"):
        tools.check(has, needed, beyond=True)
    if needed <= set(has):
        tools.check(has, needed, beyond=False)
        return
    with pytest.raises(errors.Denied) as refused:
        tools.check(has, needed, beyond=False)
    assert refused.value.details["lacking"] == ", ".join(sorted(needed - set(has)))
