"""Generated code is what its sources give, and the field rules of the protocol spell names as names.py does."""

from __future__ import annotations

import re
import subprocess
import sys

from model_organisms import names

from tests.support.tree import ROOT

PATTERN = re.compile(r'string\.pattern = "(?P<rule>[^"]+)"|pattern: "(?P<inner>[^"]+)"')


def test_generated_code_is_committed_as_generated():
    command = [sys.executable, "proto/generate.py", "--check", "--lint"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_field_rules_spell_names_as_names_py_does():
    """Every rule with a collection in it is a pattern of names.py, anchored, perhaps with an empty value allowed."""
    known = {pattern.replace("(?:", "(") for pattern in names.PATTERNS.values()}
    allowed = {form for pattern in known for form in (f"^{pattern}$", f"^({pattern})?$", f"^$|^{pattern}$")}
    rules = set()
    for path in sorted((ROOT / "proto/model_organisms/v1").glob("*.proto")):
        for match in PATTERN.finditer(path.read_text()):
            rules.add((match["rule"] or match["inner"]).replace("\\\\", "\\").replace("(?:", "("))
    of_names = {rule for rule in rules if re.match(r"\^\(?[a-z]+/", rule) or "|^" in rule}
    assert of_names, "no field rule names a resource: has the way they are written changed?"
    assert of_names <= allowed, of_names - allowed
