"""Generates the Python code of the protocol; `make proto` runs it, and nobody edits what it writes.

`python proto/generate.py` writes sdk/src; `--check` writes elsewhere and compares; `--lint` hands the same descriptors to
`buf lint`. The rules of protovalidate are taken from the installed distribution's own descriptor, so that the rules compiled
in and the rules checked at run time cannot drift apart.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from protovalidate._gen.buf.validate import validate_pb  # its descriptor is published nowhere else in the wheel

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT.parent / "sdk" / "src"
BIN = Path(sys.executable).parent
SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("model_organisms/v1/*.proto"))
RULES = "buf/validate/validate.proto"


def imported() -> bytes:
    """Descriptors of what our files import, as a serialised FileDescriptorSet."""
    found = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, any_pb2, timestamp_pb2, duration_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    found.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())  # noqa: SLF001 - see the import
    return found.SerializeToString()


def protoc(scratch: Path, *arguments: str) -> None:
    """Run the compiler over our sources."""
    dependencies = scratch / "imported.binpb"
    dependencies.write_bytes(imported())
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--descriptor_set_in={dependencies}", *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


def generate(into: Path, scratch: Path) -> list[Path]:
    """Write the modules and stubs.

    Args:
        into: Folder that stands for `sdk/src`.
        scratch: Folder for intermediate files.

    Returns:
        Paths written, relative to `into`.
    """
    plugins = [f"--plugin=protoc-gen-{name}={BIN / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python")]
    stubs = [f"--{kind}_out=quiet:{into}" for kind in ("mypy", "mypy_grpc")]
    protoc(scratch, *plugins, *outputs, *stubs, *SOURCES)
    protoc(scratch, f"--python_out={into}", RULES)
    for unused in into.glob("model_organisms/v1/*_pb2_grpc.py"):
        if b"Stub" not in unused.read_bytes():
            unused.unlink()
            unused.with_suffix(".pyi").unlink(missing_ok=True)
    return sorted(path.relative_to(into) for path in into.rglob("*_pb2*.py*"))


def check(scratch: Path) -> bool:
    """Tell whether the committed code is what the sources give."""
    fresh = scratch / "fresh"
    fresh.mkdir()
    expected = set(generate(fresh, scratch))
    folders = (PACKAGE / "model_organisms" / "v1", PACKAGE / "buf")
    present = {path.relative_to(PACKAGE) for folder in folders for path in folder.rglob("*_pb2*.py*") if path.suffix != ".pyc"}
    same, different, missing = filecmp.cmpfiles(PACKAGE, fresh, [str(path) for path in expected], shallow=False)
    stale = sorted({*different, *missing, *(str(path) for path in present - expected)})
    for path in stale:
        print(f"{path} is not what proto/ gives; run `make proto`.", file=sys.stderr)  # noqa: T201 - a command
    return not stale and len(same) == len(expected)


def lint(scratch: Path) -> bool:
    """Run `buf lint` over our files, with their comments."""
    image = scratch / "image.binpb"
    protoc(scratch, "--include_source_info", "--include_imports", f"--descriptor_set_out={image}", *SOURCES)
    return subprocess.run([BIN / "buf", "lint", image, "--path", "model_organisms"], check=False, cwd=ROOT).returncode == 0


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed code, write nothing")
    parser.add_argument("--lint", action="store_true", help="run buf lint, write nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if options.lint or options.check:
            return 0 if (not options.lint or lint(scratch)) and (not options.check or check(scratch)) else 1
        generate(PACKAGE, scratch)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
