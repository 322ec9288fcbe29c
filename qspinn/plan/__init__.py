"""The plan: which tensor gets which fixed-point format, and what that costs in memory."""

from qspinn.plan.activity import Activity, ReportsWork, WorkReport, WorkUnknownError
from qspinn.plan.costing import work_of
from qspinn.plan.counting import check_countable, count_activity
from qspinn.plan.declared import (
    DeclaredTensor,
    DeclaresTensors,
    declared_tensors,
    declares_tensors,
    layers_of,
)
from qspinn.plan.dry_run import inspect, needs_forward_pass
from qspinn.plan.energy import EnergyModel
from qspinn.plan.footprint import Footprint, FootprintItem, footprint, footprint_of
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.neurons import charge_of, reset_states
from qspinn.plan.quantization_plan import QuantizationPlan, resolve
from qspinn.plan.resolved import ResolvedPlan, ResolvedTensor
from qspinn.plan.roles import ROLE_MEANINGS, ROLES, Role
from qspinn.plan.rules import Rule
from qspinn.plan.settings import CALIBRATIONS, GRANULARITIES, LEVELS, TensorSettings
from qspinn.plan.summary import Left, OffGrid, Share, Summary, summary_of
from qspinn.plan.work import LayerWork, Work

__all__ = [
    "CALIBRATIONS",
    "GRANULARITIES",
    "LEVELS",
    "ROLES",
    "ROLE_MEANINGS",
    "Activity",
    "DeclaredTensor",
    "DeclaresTensors",
    "EnergyModel",
    "Footprint",
    "FootprintItem",
    "Inventory",
    "LayerInfo",
    "LayerWork",
    "Left",
    "OffGrid",
    "QuantizationPlan",
    "ReportsWork",
    "ResolvedPlan",
    "ResolvedTensor",
    "Role",
    "Rule",
    "Share",
    "Summary",
    "TensorInfo",
    "TensorSettings",
    "Work",
    "WorkReport",
    "WorkUnknownError",
    "charge_of",
    "check_countable",
    "count_activity",
    "declared_tensors",
    "declares_tensors",
    "footprint",
    "footprint_of",
    "inspect",
    "layers_of",
    "needs_forward_pass",
    "reset_states",
    "resolve",
    "summary_of",
    "work_of",
]
