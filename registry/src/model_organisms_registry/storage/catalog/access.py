"""Requests, approvals and grants: the catalog's face for `access`. Whether access is given is decided elsewhere."""

from model_organisms_registry.storage.catalog.grants import (
    active_grants,
    add_grant,
    grant,
    grants,
    refund,
    revoke_grant,
    spend,
)
from model_organisms_registry.storage.catalog.requests import (
    RequestFilter,
    add_approval,
    add_request,
    request,
    requests,
    update_request,
)

__all__ = [
    "RequestFilter",
    "active_grants",
    "add_approval",
    "add_grant",
    "add_request",
    "grant",
    "grants",
    "refund",
    "request",
    "requests",
    "revoke_grant",
    "spend",
    "update_request",
]
