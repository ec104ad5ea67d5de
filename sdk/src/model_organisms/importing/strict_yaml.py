"""YAML from strangers, read as what JSON has, in bounded time and memory. What it means: its reader.

The usual loader follows references, of which a few lines unfold to gigabytes, makes dates and sets, and lets the last of two
equal keys win. Here a reference, a tag, an equal key and a deep nesting are refused, and a key is the text that is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Hashable

    from model_organisms.errors import ModelOrganismsError

MAX_YAML = 256 << 10


class _Loader(yaml.SafeLoader):
    """Values as JSON has them, but for what `strict_json` then refuses."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ARG002, FBT002 - as it is called
        """Keys as written, each once."""
        found: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in found:
                raise ValueError("a key is no text, or stands twice")
            found[key.value] = self.construct_object(value, deep=True)
        return found


# A date is the text that is written.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(data: bytes | memoryview, *, what: str, error: type[ModelOrganismsError], limit: int = MAX_YAML) -> Any:  # noqa: ANN401 - as JSON
    """Read one YAML document.

    Steps, cheapest first: 1. size and UTF-8, 2. depth and references, before anything is built, 3. values, 4. what JSON has.

    Args:
        data: The bytes.
        what: What they should be, for the message.
        error: Class to raise.
        limit: Most bytes taken.

    Raises:
        ModelOrganismsError: As `error`: the bytes are not such YAML.
    """
    if len(data) > limit:
        raise error(f"{what} has {len(data):,} bytes and at most {limit:,} are read; give a part of it.")
    try:
        text = bytes(data).decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > strict_json.MAX_DEPTH:
                raise error(
                    f"{what} refers back into itself, or nests deeper than {strict_json.MAX_DEPTH}; write it out plainly."
                )
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that takes less
        strict_json.canonical(value)
    except (yaml.YAMLError, ValueError, RecursionError) as wrong:  # a decoding error is a ValueError; texts quote the input
        raise error(f"{what} is not plain YAML in UTF-8: maps, lists, texts and numbers, each key once; write it so.") from wrong
    return value
