"""What a provenance says of an import, under `imported`: where the bytes came from, and what was claimed of them there.

    imported   {source, asked, claims: [{name, found, claimed, by, agrees}], files: {path: path there}, …}

Who published it has said all of this, and the bytes have been held against it on their machine; nobody here asks the source
again. So a reader takes nothing from it but which claims differ, by names that are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "imported"
NAMES = ("base", "rank", "layers", "layer_count", "target_modules", "alpha", "rslora", "parameters")
"""What a claim can be about, in the order in which it is shown."""


def marks(extra: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what readers of a version should know of its import; nothing of it is a stranger's words.

    Args:
        extra: What a provenance has beyond its own fields.
    """
    imported = extra.get(KEY)
    if not isinstance(imported, dict):
        return ()
    claims = imported.get("claims")
    rows = [row for row in claims if isinstance(row, dict)] if isinstance(claims, list) else []
    wrong = {row.get("name") for row in rows if row.get("agrees") is False and isinstance(row.get("name"), str)}
    differ = [f"a claim of the source differs: {name.replace('_', ' ')}" for name in NAMES if name in wrong]
    return ("imported: how it was trained is claimed, not recorded", *differ)
