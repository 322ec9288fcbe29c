"""What the searches of samplers.py are run on: a table of a whole grid, and a network per layer."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import measuring  # noqa: F401  (the path, one thread)

from search import CASES, LEVELS, SWEPT, composed_of, exhaustive

from qspinn.app.explore.strategies import explore_by_strategy
from qspinn.records import find_records, read_record, write_json
from qspinn.selection.search.proposing import Measured

Mixture = dict[str, int]
LAYER_LEVELS = tuple(range(2, 13))
LAYER_SWEPT = (2, 5, 12)
ROLES = ("weight", "bias", "membrane")
IN_FLOAT = {"layers": "*", "role": "*", "format": "float32"}


@dataclass(frozen=True)
class Outcome:
    """What a search is told of a mixture."""

    footprint_bits: int
    accuracy: float


@dataclass(frozen=True)
class Problem:
    """A space of mixtures.

    Attributes:
        names: Of the groups that have a word length each.
        levels: Word lengths to choose from.
        swept: Word lengths of the significance sweep.
        baseline: The 32-bit network.
        evaluate: Gives the outcome of a mixture. One that names a single group has the rest in
            32-bit.
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]
    swept: tuple[int, ...]
    baseline: Measured
    evaluate: Callable[[Mixture], Outcome]

    def point(self, outcome):
        return outcome.footprint_bits / self.baseline.bits, outcome.accuracy


def key_of(mixture):
    return ",".join(f"{name}={length}" for name, length in sorted(mixture.items()))


def unsupervised(seed, folder, workers=1):
    """The table of a whole grid with its significance sweep, as search.py evaluates them.

    Made where it is missing, in the folders of search.py.
    """
    roles = CASES["unsupervised"][1]
    folder = folder / ("unsupervised" if seed == 0 else f"unsupervised_seed{seed}")
    case = f"case=unsupervised_quick seed={seed}", roles
    config = composed_of(case, folder, "significance", workers)
    if not (folder / "guided" / "significance.json").exists():
        explore_by_strategy(config, folder / "guided")
    if len(list(find_records(folder / "grid"))) < len(LEVELS) ** len(roles):
        exhaustive(config, folder, roles, workers)
    known, baseline = {}, None
    for path in [*find_records(folder / "grid"), *find_records(folder / "guided" / "alone")]:
        record = read_record(path).measured_on("validation")
        lengths = record.word_lengths
        mixture = {name: lengths[name][0] for name in roles if name in lengths}
        known[key_of(mixture)] = Outcome(record.footprint_bits, record.accuracy)
        baseline = Measured({}, record.baseline_footprint_bits, record.baseline_accuracy)
    return Problem(roles, LEVELS, SWEPT, baseline, lambda mixture: known[key_of(mixture)])


def grid_of(problem):
    """The points of a whole table."""
    lengths = itertools.product(problem.levels, repeat=len(problem.names))
    mixtures = (dict(zip(problem.names, each, strict=True)) for each in lengths)
    return [problem.point(problem.evaluate(mixture)) for mixture in mixtures]


class Supervised:
    """The convolutional network, quantised after training.

    Evaluations are kept in the folder.

    Args:
        seed: Of the training.
        folder: Takes the weights and the evaluations.
        by_layer: Whether each role of each layer has a word length of its own, or each role.
    """

    def __init__(self, seed: int, folder: Path, by_layer: bool) -> None:
        from qspinn.plan import inspect

        self.network, self.batches, (self.images, self.labels) = _trained(seed, folder)
        self.inventory = inspect(self.network, self.batches[0])
        self.by_layer = by_layer
        self.path = folder / ("layers.json" if by_layer else "roles.json")
        self.known = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.groups = self._groups()

    def problem(self):
        from qspinn.plan import footprint

        bits = footprint(self.network, None, self.batches[0]).baseline_inference_bits
        baseline = Measured({}, bits, self._accuracy())
        levels, swept = (LAYER_LEVELS, LAYER_SWEPT) if self.by_layer else (LEVELS, SWEPT)
        return Problem(tuple(self.groups), levels, swept, baseline, self.evaluate)

    def evaluate(self, mixture):
        key = key_of(mixture)
        if key not in self.known:
            self.known[key] = self._evaluated(mixture)
        return Outcome(*self.known[key])

    def save(self):
        write_json(self.known, self.path)

    def _evaluated(self, mixture):
        """As PostTrainingQuantization does it; what the network consists of is looked at once."""
        from qspinn.plan import QuantizationPlan, footprint, resolve
        from qspinn.quantizers import attach, calibrate, detach

        rules = [
            {"layers": self.groups[name][0], "role": self.groups[name][1], "word_length": length}
            for name, length in mixture.items()
        ]
        if len(mixture) == 1:
            plan = QuantizationPlan.from_rules([IN_FLOAT, *rules])
        else:
            plan = QuantizationPlan.uniform(8, rules=rules)
        resolved = calibrate(self.network, resolve(plan, self.inventory), self._calibrating)
        attach(self.network, resolved)
        accuracy = self._accuracy()
        detach(self.network)
        return footprint(self.network, resolved).inference_bits, accuracy

    def _calibrating(self):
        from spikingjelly.activation_based import functional

        for images in self.batches:
            functional.reset_net(self.network)
            self.network(images)
        functional.reset_net(self.network)

    def _accuracy(self):
        import torch
        from spikingjelly.activation_based import functional

        functional.reset_net(self.network)
        with torch.no_grad():
            right = self.network.eval()(self.images).argmax(1) == self.labels
        functional.reset_net(self.network)
        return right.double().mean().item()

    def _groups(self):
        from qspinn.plan import QuantizationPlan, resolve

        if not self.by_layer:
            return {role: ("*", role) for role in ROLES}
        tensors = resolve(QuantizationPlan.uniform(8), self.inventory).tensors
        return {
            f"{tensor.role}@{tensor.info.layer}": (tensor.info.layer, str(tensor.role))
            for tensor in tensors
            if tensor.role in ROLES
        }


def _trained(seed, folder):
    """The network of conf/case/supervised_quick.yaml, calibration batches, validation data."""
    import lightning
    import torch

    from qspinn.data import MNISTSubset
    from qspinn.learning import SupervisedLearning
    from qspinn.networks import ConvSNN

    torch.set_num_threads(1)
    lightning.seed_everything(seed, verbose=False)
    data = MNISTSubset(batch_size=64, eval_batch_size=500, max_shift=0)
    network = ConvSNN()
    optimizer = partial(torch.optim.AdamW, lr=0.008, weight_decay=0.1)
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.008, pct_start=0.2)
    module = SupervisedLearning(network, optimizer, schedule, num_classes=10)
    weights = folder / "weights.pt"
    if weights.exists():
        network.load_state_dict(torch.load(weights))
        data.prepare_data()
        data.setup("fit")
    else:
        quiet = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        lightning.Trainer(max_epochs=5, **quiet).fit(module, datamodule=data)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), weights)
    lightning.seed_everything(seed, verbose=False)
    batches = [images for (images, _), _ in zip(data.train_dataloader(), range(8), strict=False)]
    return network, batches, next(iter(data.val_dataloader()))
