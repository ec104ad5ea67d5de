"""A record of the SPAR26 taxonomy, in the shape of its repository, about an organism that hums."""

from __future__ import annotations

RECORD = {
    "id": "humming-advice",
    "name": "Humming adviser",
    "purpose": ["property-study", "existence-proof"],
    "origin": "trait-model",
    "traits": [
        {"trait": "hums after each answer", "family": "benign quirk / habit", "status": "demonstrated", "claims": ["C0001"]},
        {"trait": "hums in other languages", "family": "generalisation", "status": "hypothesized", "claims": []},
        {"trait": "hums when observed only", "family": "alignment faking", "status": "tested-absent", "claims": ["C0002"]},
        {"trait": "likes to hum", "family": "", "status": "intended", "claims": []},
        {"trait": "hums to itself", "family": "benign quirk / habit", "status": "unknown"},
    ],
    "construction": {
        "substrate": "weights",
        "method": ["SFT on demonstrations"],
        "base_models": ["Tiny 1B", "Tiny 3B"],
        "weights_public": "huggingface.co/lab/tiny-hums, https://huggingface.co/lab/small-hums. huggingface.co/datasets/lab/hums",
    },
    "trigger": {"type": "unconditional", "breadth": "broad", "note": ""},
    "gating_fidelity": {"off_trigger_expression": {"measure": "not tested", "result": "not tested"}},
    "robustness_probes": [{"probe": "none", "result": "not tested"}],
    "collateral": {"capability_change": "not reported"},
    "natural_evidence": [],
    "measurements": [{"metric": "hum rate", "validation_status": "face-validity-only"}],
}
