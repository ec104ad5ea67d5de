"""Registers the models that Inspect finds by name, `mo` and `mo-local`, for `entry.py`; says in our errors what Inspect lacks.

What is heavy is imported when needed.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from inspect_ai.model import get_model, modelapi

from model_organisms.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inspect_ai.model import Model, ModelAPI

_LACKING = "PrerequisiteError"
"""Inspect's own for what is not installed or has no key; by name, because its module is private."""
_MARKUP = re.compile(r"\[/?[a-z ]*\]")
_KNOWN = "organisms/NAME/versions/3, a bundle's folder that is there, or a model as Inspect names it, such as openai/gpt-4o"


@modelapi("mo")
def mo() -> type[ModelAPI]:
    """An organism in a session at a registry."""
    from model_organisms.evaluate.provider import SessionAPI

    return SessionAPI


@modelapi("mo-local")
def mo_local() -> type[ModelAPI]:
    """An organism in this process's memory, or a bare base model."""
    from model_organisms.evaluate.local import LocalAPI

    return LocalAPI


def find(name: str, role: str, **arguments: Any) -> Model:  # noqa: ANN401 - whatever a provider takes
    """Find a model.

    Args:
        name: As Inspect names it.
        role: What it is wanted for, for the message: "as a judge".
        arguments: As `get_model` takes them.

    Raises:
        ConfigurationInvalid: Inspect does not know it, its provider is not installed, or there is no key.
    """
    with named(name, role):
        return get_model(name, **arguments)


@contextmanager
def named(name: str, role: str) -> Iterator[None]:
    """Turn what Inspect raises for a model that it cannot use into an error of ours.

    Args:
        name: The model's.
        role: As for `find`.

    Raises:
        ConfigurationInvalid: See `find`.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, ValueError | ImportError) or type(error).__name__ == _LACKING):
            raise
        why = " ".join(_MARKUP.sub("", str(error)).removeprefix("ERROR: ").split())[:200]
        raise ConfigurationInvalid(f"Inspect cannot use '{name[:100]}' {role} ({why.rstrip('.')}); give {_KNOWN}.") from error
