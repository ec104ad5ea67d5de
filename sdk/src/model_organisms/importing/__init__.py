"""Brings organisms from elsewhere into a registry: adapters from a model hub, a catalogue's entries, a taxonomy's records.

source.py     hf://owner/name@commit        hub.py          asks a hub, and holds what it sends against its digests
arranging.py  which files become which      claims.py       what is said of them, beside what they say
planning.py   all of it, before publishing  publishing.py   and then that
foundations.py  the base model              curves.py       loss by step, from a Trainer's state
catalogue.py  the diffing toolkit's YAML    taxonomy.py     SPAR26 records

    plan = importing.plan("hf://owner/name@0123…", claims={"layers": "24"})
    importing.publish(client, plan, "organisms/ours", level="CL2")
"""

from __future__ import annotations

from model_organisms.importing.arranging import Part
from model_organisms.importing.catalogue import Catalogue, Entry, read_catalogue
from model_organisms.importing.planning import Notes, Plan, plan
from model_organisms.importing.publishing import publish, suggested
from model_organisms.importing.source import Source, parse
from model_organisms.importing.taxonomy import Record, read_taxonomy

__all__ = [
    "Catalogue",
    "Entry",
    "Notes",
    "Part",
    "Plan",
    "Record",
    "Source",
    "parse",
    "plan",
    "publish",
    "read_catalogue",
    "read_taxonomy",
    "suggested",
]
