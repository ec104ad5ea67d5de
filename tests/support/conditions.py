"""Conditions of every kind, for properties: each as it may be written, and no other."""

from __future__ import annotations

from hypothesis import strategies as st
from model_organisms.formats.conditions import LASTING, LONGEST_S, NAMED
from model_organisms.records import Condition, Modifier

_IDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def conditions() -> st.SearchStrategy[Condition]:
    """Any condition that is understood."""
    plain = sorted(set(Modifier) - LASTING - NAMED - {Modifier.UNSPECIFIED})
    return st.one_of(
        st.builds(Condition, st.sampled_from(plain)),
        st.builds(Condition, st.sampled_from(sorted(LASTING)), duration_s=st.integers(1, LONGEST_S)),
        st.builds(Condition, st.just(Modifier.PROJECT), name=_IDS),
        st.builds(Condition, st.just(Modifier.INSTITUTION), name=_IDS.map("organisations/{}".format)),
    )
