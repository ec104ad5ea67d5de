"""The health protocol of gRPC, at the enrolment door, where a probe needs no certificate: what serves, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health_pb2
from model_organisms.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model_organisms_registry.gate.entities import Conditions
    from model_organisms_registry.rpc.door import Arrival
    from model_organisms_registry.workflows.policies import Policies
    from model_organisms_registry.workflows.rerunning import Rerunning

ANSWERED = frozenset({"Check", "List"})
"""`Watch` is not: each watcher would hold a thread. Clients of the protocol ask again instead."""


class HealthRooms:
    """`grpc.health.v1.Health`.

    Args:
        conditions: How the registry stands now.
        policies: Whether what lies in the operator's folder is what was adopted.
        reruns: Whether what was said again came out the same.
    """

    def __init__(self, conditions: Callable[[], Conditions], policies: Policies, reruns: Rerunning) -> None:
        """Keep them. The registry as a whole, whose name is empty, serves while an entry can be written."""
        self._parts: Mapping[str, Callable[[], bool]] = {
            "": lambda: conditions().ledger,
            "ledger": lambda: conditions().ledger,
            "witness": lambda: conditions().witness,
            "cells": lambda: conditions().jail,
            "policies": lambda: policies.settled,
            "reruns": lambda: not reruns.alarmed,
        }

    def check(self, arrival: Arrival, request: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Say whether one part is well."""
        del arrival  # anybody may ask
        if request.service not in self._parts:
            raise NotFound.named(request.service)
        return self._said(request.service)

    def list(self, arrival: Arrival, request: health_pb2.HealthListRequest) -> health_pb2.HealthListResponse:
        """Say it of all parts."""
        del arrival, request
        return health_pb2.HealthListResponse(statuses={name: self._said(name) for name in self._parts})

    def _said(self, name: str) -> health_pb2.HealthCheckResponse:
        well = self._parts[name]()
        return health_pb2.HealthCheckResponse(
            status=health_pb2.HealthCheckResponse.SERVING if well else health_pb2.HealthCheckResponse.NOT_SERVING
        )
