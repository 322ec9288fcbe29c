"""Choose among runs: the target, the Pareto front, the reward, the winner. Pure, without torch.

What searches need (`proposing`, `kriging`, `expected`) is not loaded from here: it takes NumPy, and
selecting starts sooner without.
"""

from qspinn.selection.baselines import fill_baselines
from qspinn.selection.chosen_by import check_chosen_by, runs_chosen_by
from qspinn.selection.groups import Group, group_runs
from qspinn.selection.hypervolume import REFERENCE, hypervolume
from qspinn.selection.intervals import difference_margin, wilson_interval
from qspinn.selection.mu import Choice, choices
from qspinn.selection.pareto import dominates, pareto_front
from qspinn.selection.reward import EnergyReward, FaithfulReward, LinearReward, Reward
from qspinn.selection.runs import MixedRunsError, Run, check_comparable
from qspinn.selection.search.greedy import greedy_path
from qspinn.selection.search.significance import Significance, SweepPoint, significance
from qspinn.selection.selection import Row, Selection, select
from qspinn.selection.target import Candidates, Dropped, Target, candidates

__all__ = [
    "REFERENCE",
    "Candidates",
    "Choice",
    "Dropped",
    "EnergyReward",
    "FaithfulReward",
    "Group",
    "LinearReward",
    "MixedRunsError",
    "Reward",
    "Row",
    "Run",
    "Selection",
    "Significance",
    "SweepPoint",
    "Target",
    "candidates",
    "check_chosen_by",
    "check_comparable",
    "choices",
    "difference_margin",
    "dominates",
    "fill_baselines",
    "greedy_path",
    "group_runs",
    "hypervolume",
    "pareto_front",
    "runs_chosen_by",
    "select",
    "significance",
    "wilson_interval",
]
