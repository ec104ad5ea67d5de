"""The manifest of a bundle, whose SHA-256 is the version's digest, and the bundle packed into one buffer to be sealed.

    manifest   RFC 8785 list of {kind, path, sha256, size}, sorted by path; same bundle, same bytes, on any machine
    packed     u32be length of the manifest || manifest || bytes of each file, in the manifest's order, nothing between

Nothing here reads what is in the files: `adapter.py` does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import DigestMismatch, InvalidBundle, InvalidManifest
from model_organisms.formats import strict_json
from model_organisms.formats.paths import MAX_FILES, check_paths, kind_of
from model_organisms.records import BundleFile, FileKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_MANIFEST = 1 << 20
MAX_BUNDLE = 64 << 30
LENGTH_BYTES = 4
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FIELDS = frozenset({"kind", "path", "sha256", "size"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a bundle.

    Invariants: `files` is sorted by path, without two alike; `data` is their one canonical form; `digest` is its SHA-256.
    """

    files: tuple[BundleFile, ...]
    data: bytes
    digest: str
    """The version's digest, hex."""

    @property
    def packed_size(self) -> int:
        """Bytes of the packed bundle."""
        return LENGTH_BYTES + len(self.data) + sum(file.size for file in self.files)


def build(files: Mapping[str, bytes | memoryview]) -> Manifest:
    """List and hash the files of a bundle.

    Args:
        files: Contents by path inside the bundle.

    Raises:
        UnsafeFile: A path escapes.
        InvalidBundle: A file has no place in a bundle.
    """
    kinds = check_paths(files)
    return of_files(
        BundleFile(path, memoryview(data).nbytes, hashlib.sha256(data).hexdigest(), kinds[path]) for path, data in files.items()
    )


def of_files(files: Iterable[BundleFile]) -> Manifest:
    """Make the manifest of files that were hashed already, as their bytes arrived.

    Raises:
        UnsafeFile: A path escapes.
        InvalidBundle: A file has no place in a bundle, or the bundle is too large.
    """
    ordered = tuple(sorted(files, key=lambda file: file.path))
    check_paths([file.path for file in ordered])
    data = strict_json.canonical([_entry(file) for file in ordered])
    if not ordered or sum(file.size for file in ordered) > MAX_BUNDLE:
        raise InvalidBundle(f"A bundle has at least one file and at most {MAX_BUNDLE:,} bytes; publish fewer checkpoints.")
    if len(data) > MAX_MANIFEST:
        msg = f"The list of the bundle's files has {len(data):,} bytes, at most {MAX_MANIFEST:,} are read; publish fewer files."
        raise InvalidBundle(msg)
    return Manifest(ordered, data, hashlib.sha256(data).hexdigest())


def parse(data: bytes | memoryview) -> Manifest:
    """Read a manifest; only the canonical bytes are one.

    Raises:
        InvalidManifest: They are not.
        UnsafeFile: A path in it escapes.
        InvalidBundle: A file in it has no place in a bundle.
    """
    entries = strict_json.parse(data, what="The manifest", limit=MAX_MANIFEST, error=InvalidManifest)
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_FILES:
        raise InvalidManifest(f"A manifest is a list of 1 to {MAX_FILES:,} files; build it with formats.manifest.build.")
    kinds = check_paths([_path(entry) for entry in entries])
    manifest = of_files(_file(entry, kinds[entry["path"]]) for entry in entries)
    if manifest.data != bytes(data):
        raise InvalidManifest("The manifest is not in its canonical form (RFC 8785, sorted by path); build it again.")
    return manifest


def pack(manifest: bytes, files: Mapping[str, bytes | memoryview]) -> Iterator[memoryview]:
    """Give the packed bundle piece by piece, without copying the files.

    Args:
        manifest: The manifest's bytes.
        files: Contents by path inside the bundle.

    Raises:
        InvalidManifest: It does not list these files at these sizes.
    """
    listed = parse(manifest).files
    sizes = {path: memoryview(data).nbytes for path, data in files.items()}
    if sizes != {file.path: file.size for file in listed}:
        raise InvalidManifest("The manifest does not list exactly these files at their sizes; build it from them.")
    yield memoryview(len(manifest).to_bytes(LENGTH_BYTES, "big"))
    yield memoryview(manifest)
    for file in listed:
        yield memoryview(files[file.path]).cast("B")


def unpack(buffer: bytes | memoryview, *, check_digests: bool = True) -> tuple[Manifest, dict[str, memoryview]]:
    """Take a packed bundle apart, without copying.

    Args:
        buffer: The packed bundle.
        check_digests: Hash every file. Off only where every byte was authenticated under the version's digest already, as a
            capsule's are.

    Returns:
        The manifest, and a read-only view of each file, by path.

    Raises:
        InvalidManifest: The buffer is not a packed bundle.
        DigestMismatch: It is cut or too long, or a file does not hash to what the manifest says.
    """
    view = memoryview(buffer).cast("B").toreadonly()
    length = int.from_bytes(view[:LENGTH_BYTES], "big")
    if not 0 < length <= min(MAX_MANIFEST, len(view) - LENGTH_BYTES):
        raise InvalidManifest(
            "These bytes are not a packed bundle: no manifest of plausible length comes first; fetch them again."
        )
    manifest = parse(view[LENGTH_BYTES : LENGTH_BYTES + length])
    if len(view) != manifest.packed_size:
        msg = f"The packed bundle has {len(view):,} bytes and its manifest asks for {manifest.packed_size:,}; fetch it again."
        raise DigestMismatch(msg)
    at = LENGTH_BYTES + length
    files = {}
    for file in manifest.files:
        files[file.path] = view[at : at + file.size]
        at += file.size
    if check_digests:
        check_files(manifest, files)
    return manifest, files


def check_files(manifest: Manifest, files: Mapping[str, bytes | memoryview]) -> None:
    """Hash files against a manifest.

    Raises:
        DigestMismatch: A file is missing, beside the list, or other than listed.
    """
    if files.keys() != {file.path for file in manifest.files}:
        raise DigestMismatch("The files are not those that the manifest lists; send exactly these.")
    for file in manifest.files:
        data = files[file.path]
        if memoryview(data).nbytes != file.size or hashlib.sha256(data).hexdigest() != file.sha256:
            raise DigestMismatch(f"'{file.path}' is not the file that the manifest lists; send it again.", path=file.path)


def _entry(file: BundleFile) -> dict[str, Any]:
    if type(file.size) is not int or not 0 <= file.size <= MAX_BUNDLE or not _SHA256.fullmatch(file.sha256):
        raise InvalidManifest(f"The size or SHA-256 of '{file.path}' cannot be one; hash the file again.", path=file.path)
    if file.kind != kind_of(file.path):
        raise InvalidManifest(f"'{file.path}' is of the kind {kind_of(file.path)}, whatever the manifest says.", path=file.path)
    return {"kind": file.kind.value, "path": file.path, "sha256": file.sha256, "size": file.size}


def _path(entry: object) -> str:
    if not isinstance(entry, dict) or entry.keys() != _FIELDS or not isinstance(entry["path"], str):
        raise InvalidManifest("An entry of the manifest is not exactly kind, path, sha256 and size; build it again.")
    return entry["path"]


def _file(entry: dict[str, Any], kind: FileKind) -> BundleFile:
    if entry["kind"] != kind.value or not isinstance(entry["sha256"], str):
        raise InvalidManifest(f"'{entry['path']}' is of the kind {kind}, whatever the manifest says; build it again.")
    return BundleFile(entry["path"], entry["size"], entry["sha256"], kind)
