"""Repair after training: numbers on a grid that do what the float network does.

``bias`` moves biases, ``threshold`` thresholds, ``learned`` rounds weights together.
"""

from qspinn.quantizers.repair.kinds import REPAIRS, as_repairs
from qspinn.quantizers.repair.repairing import Repaired, check_repairable, repair, repaired_on

__all__ = ["REPAIRS", "Repaired", "as_repairs", "check_repairable", "repair", "repaired_on"]
