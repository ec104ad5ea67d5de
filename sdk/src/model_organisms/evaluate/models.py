"""Registers the models that Inspect finds by name, `mo` and `mo-local`; for `entry.py`. What is heavy is imported when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inspect_ai.model import modelapi

if TYPE_CHECKING:
    from inspect_ai.model import ModelAPI


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
