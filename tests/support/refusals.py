"""How a test says that something is refused as it should be: by which class, in what words, and how soon."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from model_organisms import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def refused(error: type[errors.ModelOrganismsError], says: str) -> Iterator[pytest.ExceptionInfo[errors.ModelOrganismsError]]:
    """Exactly this class, under its reason, and a message that says what to do in words that `says` matches."""
    with pytest.raises(error, match=says) as caught:
        yield caught
    assert type(caught.value) is error
    assert errors.BY_REASON[caught.value.reason] is error
    assert caught.value.message.isprintable()


def quick(call: Callable[[], Any], *, within_s: float) -> None:
    """Call, and see that the answer, or the refusal, comes in time."""
    begun = time.monotonic()
    try:
        call()
    finally:
        assert time.monotonic() - begun < within_s
