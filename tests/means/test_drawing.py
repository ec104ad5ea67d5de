"""The share of turns that are said again is one, or the registry does not start; and no account is the registry itself."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from model_organisms import errors
from model_organisms.records import Role
from model_organisms_registry.domain import identity
from model_organisms_registry.workflows.drawing import Draw


@pytest.mark.parametrize("share", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_share_that_is_none_is_refused_by_its_name_in_the_settings(share):
    with pytest.raises(errors.ConfigurationInvalid, match="rerun_share"):
        Draw(share)


def test_a_turn_of_a_cell_that_others_shared_is_not_in_the_draw_whatever_its_level_is_by_now():
    """So the level is not even looked up: here is no database."""
    receipt = SimpleNamespace(version="organisms/raised/versions/1")
    for outcome, released in (("cell_unavailable", True), ("stop", False)):
        assert Draw(1.0).facts(None, receipt, outcome, released=released, alone=False) == {}


def test_nobody_gets_the_name_under_which_the_registry_asks_its_gate():
    told = {"display_name": "R", "organisation": "organisations/lab", "now": datetime.now(UTC)}
    with pytest.raises(errors.InvalidArgument, match="registry itself"):
        identity.invite(identity.ITSELF, roles=[Role.RESEARCHER], **told)
    assert identity.invite("users/registry-1", roles=[Role.RESEARCHER], **told).name == "users/registry-1"
