"""Brings in every module whose stories note commands of `mo`; `tests/sdk/test_cli.py` plays them."""

from __future__ import annotations

import tests.support.games
import tests.support.hub
import tests.support.motions
import tests.support.parrot
import tests.support.recall  # noqa: F401 - they note their commands as they are imported
