"""What a file's bytes give away, whatever its name says: pickles, archives, programs, pointers. What the bytes mean: its reader.

A file whose first bytes are those of an archive is refused, and so is one whose last bytes are a zip directory: zip is read from
its end, so a file can be text or tensors to one reader and an archive to another.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidBundle, RefusedConfig, UnsafeFile
from model_organisms.formats import strict_json
from model_organisms.records import FileKind

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
LIMITS = {
    FileKind.WEIGHTS: 16 << 30,
    FileKind.CHECKPOINT: 16 << 30,
    FileKind.CONFIG: MIB,
    FileKind.PROMPT: MIB,
    FileKind.TOKENIZER: 64 * MIB,
    FileKind.CARD: MIB,
    FileKind.DATA_CARD: MIB,
}
"""Most bytes of a file of each kind."""

_MAGIC = {
    b"PK\x03\x04": "a zip archive (or a PyTorch file)",
    b"PK\x05\x06": "a zip archive",
    b"PK\x07\x08": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x04\x22\x4d\x18": "an lz4 archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x93NUMPY": "a numpy file",
    b"GGUF": "a GGUF file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"#!": "a script",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to (fetch that with `git lfs pull`)",
}
_PICKLE_PROTOCOLS = range(6)
_TAR_MAGIC = (257, b"ustar")
_ZIP_ENDS = re.compile(rb"PK\x05\x06")
_ZIP64_END = b"PK\x06\x07"
_ZIP64_END_SIZE = 20
_ZIP_DIRECTORY = b"PK\x01\x02"
_ZIP_END_SIZE = 22
_ZIP_TAIL = _ZIP_END_SIZE + 0xFFFF
_SAFETENSORS_PREFIX = 9
_CARDS = frozenset({FileKind.CARD, FileKind.DATA_CARD})
# Control characters but tab and line ends, marks of writing direction, and the invisible tag characters.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_TOKENIZER_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")
# Names between double underscores lead from any value of a template to the whole interpreter, `attr` gets at them by a string,
# and the other words read further templates from disk. Rendering is walled off too; a template that tries is not taken at all.
_TEMPLATE_CODE = re.compile(r"__[A-Za-z]+__|\|\s*attr\b|\{%[-+]?\s*(?:include|import|from|extends)\b")
# SentencePiece is a protobuf whose first field is 1; tiktoken's form is lines of a token in base64 and its rank.
_LINE = 1024
_TOKENIZER_MODEL = re.compile(rb"\n|[A-Za-z0-9+/]+={0,2} \d+\r?\n")


def check_content(path: str, data: bytes | memoryview, kind: FileKind) -> None:
    """Refuse a file whose bytes are not of its kind.

    Steps: 1. size, 2. first bytes, 3. last bytes, 4. text that is text, 5. tokenizer settings and templates that would run code.
    Tensors and adapter configs are read in full by `tensors.py` and `config.py`.

    Raises:
        InvalidBundle: Too large, or not of its kind.
        UnsafeFile: A pickle, an archive or a program.
        RefusedConfig: Tokenizer settings or a chat template that would run code.
    """
    view = memoryview(data).cast("B")
    if len(view) > LIMITS[kind]:
        msg = f"'{path}' has {len(view):,} bytes; a file of its kind ({kind}) has at most {LIMITS[kind]:,}."
        raise InvalidBundle(msg, path=path)
    found = _first_bytes(view) or _last_bytes(view)
    if found:
        raise UnsafeFile(f"'{path}' is {found}, whatever its name says; publish safetensors, JSON and text only.", path=path)
    if path.endswith(".safetensors"):
        return
    if path.endswith(".model"):
        if not _TOKENIZER_MODEL.match(view[:_LINE]):
            raise InvalidBundle(f"'{path}' is no SentencePiece or tiktoken model; save the tokenizer again.", path=path)
        return
    text = _text(path, view)
    if kind in _CARDS:
        _check_card(path, text)
    if kind is FileKind.TOKENIZER and path.endswith(".json") and text.lstrip()[:1] != "{":
        raise InvalidBundle(f"'{path}' is not a JSON object; save the tokenizer again.", path=path)
    if path == "tokenizer_config.json":
        _check_tokenizer(path, view)
    if path == "chat_template.jinja":
        _check_template(path, text)


def _first_bytes(view: memoryview) -> str:
    offset, magic = _TAR_MAGIC
    if bytes(view[offset : offset + len(magic)]) == magic:  # before anything else: what stands above it may be a file's name
        return "a tar archive"
    head = bytes(view[:32])
    if _looks_like_safetensors(head):
        return ""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if len(head) > 1 and head[0] == 0x80 and head[1] in _PICKLE_PROTOCOLS:  # noqa: PLR2004 - the PROTO opcode
        return "a pickle"
    return ""


def _looks_like_safetensors(head: bytes) -> bool:
    """Tell a header length of at most 1 MiB and a brace; such a length may begin like a gzip file by chance."""
    return len(head) >= _SAFETENSORS_PREFIX and int.from_bytes(head[:8], "little") <= MIB and head[8] == ord("{")


def _last_bytes(view: memoryview) -> str:
    """Look for a zip directory that ends the file; four bytes alone occur in weights by chance, so its fields must fit.

    It is looked for where it lies: a copy of the end of a file of weights would stay in freed memory.
    """
    for found in _ZIP_ENDS.finditer(view, max(0, len(view) - _ZIP_TAIL)):
        if _is_zip_end(view, found.start()):
            return "also a zip archive, read from its end"
    return ""


def _is_zip_end(view: memoryview, at: int) -> bool:
    """Tell whether a directory begins where some reader would look for it, or nothing follows but the comment announced."""
    record = bytes(view[at : at + _ZIP_END_SIZE])
    size, place, comment = (int.from_bytes(record[begin:end], "little") for begin, end in ((12, 16), (16, 20), (20, 22)))
    directories = (at - size, place)  # counted from its end, or from the beginning of the file
    return len(record) == _ZIP_END_SIZE and (
        any(begin >= 0 and bytes(view[begin : begin + 4]) == _ZIP_DIRECTORY for begin in directories)
        or at + _ZIP_END_SIZE + comment == len(view)
        or bytes(view[max(0, at - _ZIP64_END_SIZE) :][:4]) == _ZIP64_END
    )


def _text(path: str, view: memoryview) -> str:
    try:
        text = bytes(view).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidBundle(f"'{path}' is not text in UTF-8; save it as UTF-8, or leave it out.", path=path) from None
    if "\0" in text:
        raise InvalidBundle(f"'{path}' holds NUL bytes, so it is not text; save it again as plain text.", path=path)
    return text


def _check_card(path: str, text: str) -> None:
    """Cards are shown to people: no escape codes, no marks that hide or reorder what is read."""
    if hidden := _HIDDEN.search(text):
        msg = f"'{path}' holds the character U+{ord(hidden[0]):04X}, which could hide or reorder what people read; remove it."
        raise InvalidBundle(msg, path=path)


def _check_tokenizer(path: str, view: memoryview) -> None:
    settings = strict_json.parse(view, what=f"'{path}'", limit=8 * MIB, error=RefusedConfig)
    for key in _TOKENIZER_CODE:
        if settings.get(key):
            raise RefusedConfig(
                f"'{path}' sets '{key}', which makes a loader run code from elsewhere; remove it.", path=path, key=key
            )
    for text in _texts(settings.get("chat_template")):
        _check_template(path, text)


def _texts(value: object) -> Iterator[str]:
    """Give every text in a piece of JSON: there may be one template, or several with their names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _check_template(path: str, text: str) -> None:
    """Templates are programs, run in a sandbox by those who load the organism."""
    if found := _TEMPLATE_CODE.search(text):
        msg = f"The chat template in '{path}' holds {found[0][:40]!a}, which reaches out of the template; write it without."
        raise RefusedConfig(msg, path=path, key="chat_template")
