"""May this caller do this? Cedar decides; a permit is the answer."""

from model_organisms_registry.gate.cedar import PolicySet
from model_organisms_registry.gate.entities import Conditions, Resource
from model_organisms_registry.gate.gate import Explanation, Gate

__all__ = ["Conditions", "Explanation", "Gate", "PolicySet", "Resource"]
