"""Every exception a caller can see, drawn as one tree. Nothing here does work; no module raises outside it.

    ModelOrganismsError
    ├── InvalidArgument            the request is wrong and will stay wrong
    │   ├── InvalidName                a resource name that does not parse
    │   ├── InvalidBundle              files that are not a bundle this registry takes
    │   │   ├── UnsafeFile                 pickle, archive, or a path that escapes
    │   │   ├── MalformedTensors           a safetensors file the strict reader refuses
    │   │   ├── RefusedConfig              an adapter_config.json outside the allow-list
    │   │   └── ShapeMismatch              tensors that disagree with the config or the base model
    │   ├── ClaimMismatch              a claim in the provenance that the bytes contradict
    │   ├── InvalidManifest            a manifest that is not canonical, or not of these files
    │   ├── InvalidProvenance          a statement or envelope that does not parse
    │   └── DigestMismatch             bytes that do not hash to what was announced
    ├── Unauthenticated            the caller has not proved who they are
    │   ├── CertificateRefused         foreign, expired, denied or malformed certificate
    │   └── EnrolmentRefused           a wrong, used or expired enrolment code or token
    ├── Denied                     who they are is known, and the answer is no
    │   ├── GrantRequired              no active grant covers this rung on this version
    │   ├── GrantExpired               the grant's time is over
    │   ├── GrantRevoked               the grant was taken back
    │   ├── Suspended                  the account does not stand
    │   ├── Withdrawn                  the version was taken back for good
    │   │   └── Destroyed                  the version's key was destroyed too: nothing opens it any more
    │   ├── Quarantined                the version is set aside while somebody looks into it
    │   ├── DestructionOverdue         copies that were to be destroyed are not attested to be
    │   ├── ApprovalRefused            this signature does not count for this request or motion
    │   ├── PurposeRefused             what is asked for does not fit the conditions of its owner
    │   └── EvidenceExpired            what a request states ends before the access would
    ├── NotFound                   absent, or hidden from this caller: the two read alike
    ├── AlreadyExists              the name is taken
    ├── Conflict                   the resource is not in the state this call needs
    │   └── UploadConflict             an upload resumed at the wrong offset or with other bytes
    ├── BudgetExhausted            the grant or the session has nothing left to spend
    ├── Unavailable                try again later; nothing was done
    │   ├── LedgerUnavailable          the ledger cannot be written, so nothing is served
    │   ├── RegistryUnreachable        no answer from the registry
    │   └── CellUnavailable            no cell could be started, or the cell was lost
    │       └── CellElsewhere              the session's cell is in another process of the registry
    ├── DeadlineExceeded           the call's time ran out
    ├── DeadlineRequired           the call came without a deadline
    ├── JailMissing                a wall of the sandbox is missing; refused above CL1
    ├── VerificationFailed         something signed or hashed did not verify
    │   ├── ReceiptInvalid             a ledger receipt that does not prove its entry
    │   ├── LedgerForked               a checkpoint inconsistent with one seen before
    │   ├── CapsuleInvalid             a capsule that does not open, for whatever reason
    │   └── SignatureInvalid           a signature that does not verify
    ├── LoadingFailed              weights that could not be put on a base model
    │   ├── BaseModelMissing           the base model is not in the folder or the cache
    │   ├── BaseModelMismatch          the base model is not the one the provenance names
    │   ├── AdapterKeysMismatch        missing or unexpected keys
    │   └── KnownAnswerFailed          the loaded model does not answer as the published one did
    ├── ConfigurationInvalid       a setting of the registry or the SDK that cannot be used
    │   └── PassphraseRefused          a locked identity file, and no passphrase that opens it
    └── Internal                   a fault of the registry itself; the incident id is in the details

Each class owns a stable `reason` (the `ErrorInfo.reason` on the wire) and the name of its gRPC status code, and each message
says what to do. An instance raised in the registry's `domain/` is the class caught in a notebook.
"""

from __future__ import annotations

from typing import ClassVar

DOMAIN = "model-organisms.v1"
"""`ErrorInfo.domain` of every error on the wire."""


class ModelOrganismsError(Exception):
    """Root of the tree.

    Args:
        message: What went wrong, and what to do about it.
        details: Short facts for programs, such as `{"path": "adapter.bin"}`; they travel in `ErrorInfo.metadata`.
    """

    reason: ClassVar[str] = "UNKNOWN"
    status: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, /, **details: str) -> None:
        """Keep the message and the facts."""
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidArgument(ModelOrganismsError):
    """The request is wrong and will stay wrong."""

    reason = "INVALID_ARGUMENT"
    status = "INVALID_ARGUMENT"


class InvalidName(InvalidArgument):
    """A resource name that does not parse."""

    reason = "INVALID_NAME"


class InvalidBundle(InvalidArgument):
    """Files that are not a bundle this registry takes."""

    reason = "INVALID_BUNDLE"


class UnsafeFile(InvalidBundle):
    """Pickle, archive, or a path that escapes."""

    reason = "UNSAFE_FILE"


class MalformedTensors(InvalidBundle):
    """A safetensors file the strict reader refuses."""

    reason = "MALFORMED_TENSORS"


class RefusedConfig(InvalidBundle):
    """An adapter_config.json outside the allow-list."""

    reason = "REFUSED_CONFIG"


class ShapeMismatch(InvalidBundle):
    """Tensors that disagree with the config or the base model."""

    reason = "SHAPE_MISMATCH"


class ClaimMismatch(InvalidArgument):
    """A claim in the provenance that the bytes contradict."""

    reason = "CLAIM_MISMATCH"


class InvalidManifest(InvalidArgument):
    """A manifest that is not canonical, or not of these files."""

    reason = "INVALID_MANIFEST"


class InvalidProvenance(InvalidArgument):
    """A statement or envelope that does not parse."""

    reason = "INVALID_PROVENANCE"


class DigestMismatch(InvalidArgument):
    """Bytes that do not hash to what was announced."""

    reason = "DIGEST_MISMATCH"


class Unauthenticated(ModelOrganismsError):
    """The caller has not proved who they are."""

    reason = "UNAUTHENTICATED"
    status = "UNAUTHENTICATED"


class CertificateRefused(Unauthenticated):
    """Foreign, expired, denied or malformed certificate."""

    reason = "CERTIFICATE_REFUSED"


class EnrolmentRefused(Unauthenticated):
    """A wrong, used or expired enrolment code or token."""

    reason = "ENROLMENT_REFUSED"


class Denied(ModelOrganismsError):
    """Who they are is known, and the answer is no."""

    reason = "DENIED"
    status = "PERMISSION_DENIED"


class GrantRequired(Denied):
    """No active grant covers this rung on this version."""

    reason = "GRANT_REQUIRED"


class GrantExpired(Denied):
    """The grant's time is over."""

    reason = "GRANT_EXPIRED"


class GrantRevoked(Denied):
    """The grant was taken back."""

    reason = "GRANT_REVOKED"


class Suspended(Denied):
    """The account does not stand."""

    reason = "SUSPENDED"


class Withdrawn(Denied):
    """The version was taken back for good."""

    reason = "WITHDRAWN"


class Destroyed(Withdrawn):
    """The version's key was destroyed too: nothing opens it any more."""

    reason = "DESTROYED"


class Quarantined(Denied):
    """The version is set aside while somebody looks into it."""

    reason = "QUARANTINED"


class DestructionOverdue(Denied):
    """Copies that were to be destroyed are not attested to be."""

    reason = "DESTRUCTION_OVERDUE"


class ApprovalRefused(Denied):
    """This signature does not count for this request or motion."""

    reason = "APPROVAL_REFUSED"


class PurposeRefused(Denied):
    """What is asked for does not fit the conditions of its owner."""

    reason = "PURPOSE_REFUSED"


class EvidenceExpired(Denied):
    """What a request states ends before the access would."""

    reason = "EVIDENCE_EXPIRED"


class NotFound(ModelOrganismsError):
    """Absent, or hidden from this caller: the two read alike."""

    reason = "NOT_FOUND"
    status = "NOT_FOUND"

    @classmethod
    def named(cls, name: str) -> NotFound:
        """Make the one wording that the catalog (absent) and the gate (hidden) share, so that nobody can tell them apart."""
        shown = name[:200].encode("unicode_escape").decode("ascii")
        return cls(f"There is no '{shown}' that you can see; check the name, or ask its owner for access to it.", name=shown)


class AlreadyExists(ModelOrganismsError):
    """The name is taken."""

    reason = "ALREADY_EXISTS"
    status = "ALREADY_EXISTS"


class Conflict(ModelOrganismsError):
    """The resource is not in the state this call needs."""

    reason = "CONFLICT"
    status = "FAILED_PRECONDITION"


class UploadConflict(Conflict):
    """An upload resumed at the wrong offset or with other bytes."""

    reason = "UPLOAD_CONFLICT"
    status = "ABORTED"


class BudgetExhausted(ModelOrganismsError):
    """The grant or the session has nothing left to spend."""

    reason = "BUDGET_EXHAUSTED"
    status = "RESOURCE_EXHAUSTED"


class Unavailable(ModelOrganismsError):
    """Try again later; nothing was done."""

    reason = "UNAVAILABLE"
    status = "UNAVAILABLE"


class LedgerUnavailable(Unavailable):
    """The ledger cannot be written, so nothing is served."""

    reason = "LEDGER_UNAVAILABLE"


class RegistryUnreachable(Unavailable):
    """No answer from the registry."""

    reason = "REGISTRY_UNREACHABLE"


class CellUnavailable(Unavailable):
    """No cell could be started, or the cell was lost."""

    reason = "CELL_UNAVAILABLE"


class CellElsewhere(CellUnavailable):
    """The session's cell is in another process of the registry.

    `details["replica"]` names it.
    """

    reason = "CELL_ELSEWHERE"


class DeadlineExceeded(ModelOrganismsError):
    """The call's time ran out."""

    reason = "DEADLINE_EXCEEDED"
    status = "DEADLINE_EXCEEDED"


class DeadlineRequired(ModelOrganismsError):
    """The call came without a deadline."""

    reason = "DEADLINE_REQUIRED"
    status = "INVALID_ARGUMENT"


class JailMissing(ModelOrganismsError):
    """A wall of the sandbox is missing; refused above CL1."""

    reason = "JAIL_MISSING"
    status = "FAILED_PRECONDITION"


class VerificationFailed(ModelOrganismsError):
    """Something signed or hashed did not verify."""

    reason = "VERIFICATION_FAILED"
    status = "DATA_LOSS"


class ReceiptInvalid(VerificationFailed):
    """A ledger receipt that does not prove its entry."""

    reason = "RECEIPT_INVALID"


class LedgerForked(VerificationFailed):
    """A checkpoint inconsistent with one seen before."""

    reason = "LEDGER_FORKED"


class CapsuleInvalid(VerificationFailed):
    """A capsule that does not open, for whatever reason."""

    reason = "CAPSULE_INVALID"


class SignatureInvalid(VerificationFailed):
    """A signature that does not verify."""

    reason = "SIGNATURE_INVALID"


class LoadingFailed(ModelOrganismsError):
    """Weights that could not be put on a base model."""

    reason = "LOADING_FAILED"
    status = "FAILED_PRECONDITION"


class BaseModelMissing(LoadingFailed):
    """The base model is not in the folder or the cache."""

    reason = "BASE_MODEL_MISSING"


class BaseModelMismatch(LoadingFailed):
    """The base model is not the one the provenance names."""

    reason = "BASE_MODEL_MISMATCH"


class AdapterKeysMismatch(LoadingFailed):
    """Missing or unexpected keys."""

    reason = "ADAPTER_KEYS_MISMATCH"


class KnownAnswerFailed(LoadingFailed):
    """The loaded model does not answer as the published one did."""

    reason = "KNOWN_ANSWER_FAILED"


class ConfigurationInvalid(ModelOrganismsError):
    """A setting of the registry or the SDK that cannot be used."""

    reason = "CONFIGURATION_INVALID"
    status = "FAILED_PRECONDITION"


class PassphraseRefused(ConfigurationInvalid):
    """A locked identity file, and no passphrase that opens it."""

    reason = "PASSPHRASE_REFUSED"


class Internal(ModelOrganismsError):
    """A fault of the registry itself; the incident id is in the details."""

    reason = "INTERNAL"
    status = "INTERNAL"


def _walk(root: type[ModelOrganismsError]) -> dict[str, type[ModelOrganismsError]]:
    found = {root.reason: root}
    for child in root.__subclasses__():
        found |= _walk(child)
    return found


BY_REASON: dict[str, type[ModelOrganismsError]] = _walk(ModelOrganismsError)
"""Reason to class, for the one place (`wire.py`) that turns a status back into an exception."""
