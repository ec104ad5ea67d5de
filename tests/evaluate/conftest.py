"""Closes what Inspect leaves open after a run: the event loop that the library nesting them (nest_asyncio2) closes for nobody."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture(autouse=True)
def _no_loop_is_left():
    yield
    left = getattr(asyncio.get_event_loop_policy()._local, "_loop", None)  # to ask for it would make one
    if left is not None and not left.is_running() and not left.is_closed():
        left.close()
        asyncio.set_event_loop(None)
