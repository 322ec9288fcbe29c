"""The plan: which tensor gets which fixed-point format, and what that costs in memory."""

from qspinn.plan.dry_run import inspect
from qspinn.plan.footprint import Footprint, FootprintItem, footprint, footprint_of
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.neurons import charge_of, reset_states
from qspinn.plan.resolved import ResolvedPlan, ResolvedTensor, resolve
from qspinn.plan.roles import ROLE_MEANINGS, ROLES, Role
from qspinn.plan.rules import QuantizationPlan, Rule
from qspinn.plan.settings import CALIBRATIONS, GRANULARITIES, TensorSettings

__all__ = [
    "CALIBRATIONS",
    "GRANULARITIES",
    "ROLES",
    "ROLE_MEANINGS",
    "Footprint",
    "FootprintItem",
    "Inventory",
    "LayerInfo",
    "QuantizationPlan",
    "ResolvedPlan",
    "ResolvedTensor",
    "Role",
    "Rule",
    "TensorInfo",
    "TensorSettings",
    "charge_of",
    "footprint",
    "footprint_of",
    "inspect",
    "reset_states",
    "resolve",
]
