"""The common part of in-training and post-training quantisation."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from qspinn.callbacks.arguments import check_whole
from qspinn.callbacks.device import Example, ExampleSeeker, device_model_of, no_example
from qspinn.callbacks.isolation import Forward
from qspinn.callbacks.measuring import measured_work
from qspinn.callbacks.reset_states import ResetStates
from qspinn.export import DeviceModel
from qspinn.export.container import MODEL_NAME
from qspinn.export.saving import save_model
from qspinn.metrics import Drift
from qspinn.plan import (
    EnergyModel,
    Footprint,
    QuantizationPlan,
    ResolvedPlan,
    Work,
    footprint_of,
)
from qspinn.plan.expected import as_plan
from qspinn.quantizers.saving import save_quantized

MODEL_SUFFIX = os.path.splitext(MODEL_NAME)[1]


class Quantization(ResetStates):
    """Holds a plan, what it resolved to, and the footprint that follows.

    Attributes:
        plan: What is quantised, and how.
        forward: How to run the module on a batch for calibration.
        resolved_plan: With the formats in use; ``None`` until there are any.
        fidelity: How far the network behaves as its 32-bit twin; ``None``: not measured.
        work: What the quantised network computes; ``None`` until the fit has ended, and where it
            is not known.
        energy: What operations cost; ``None``: the default. Set it before the fit.
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        forward: Forward | None,
        compile_steps: bool,
        fidelity_samples: int,
    ) -> None:
        """Takes a plan, or the dictionary of one."""
        super().__init__()
        owner = type(self).__name__
        self.plan = as_plan(plan, owner)
        if forward is not None and not callable(forward):
            raise TypeError(
                f"{owner}: forward is a {type(forward).__name__}; write a function of module and "
                "batch, such as forward=lambda module, batch: module(batch[0])"
            )
        self.forward = forward
        self.compile_steps = compile_steps
        wanted = "a number of samples, or 0 to leave out the comparison with the 32-bit network"
        self.fidelity_samples = check_whole(
            fidelity_samples, 0, f"{owner}: fidelity_samples", wanted
        )
        self.fidelity: Drift | None = None
        self.resolved_plan: ResolvedPlan | None = None
        self.work: Work | None = None
        self.energy: EnergyModel | None = None
        # Whether the plan was tried on the first batch of this fit.
        self._was_tried = False
        # The quantised module of the last fit, and what its network was given for one sample.
        self._last: weakref.ref[LightningModule] | None = None
        self._example = Example()

    @property
    def footprint(self) -> Footprint | None:
        """Bits of the quantised network; ``None`` until its formats are known."""
        if self.resolved_plan is None:
            return None
        return footprint_of(self.resolved_plan.inventory, self.resolved_plan)

    def device_model(self, example: Tensor | None = None, **described: Any) -> DeviceModel:
        """The quantised network as integers, see :func:`qspinn.export.device_model`.

        Args:
            example: An input of one sample, with the batch dimension that the network wants;
                ``None``: what it was given for a sample of the trainer's data.
            **described: ``name``, ``classes`` and ``origin``, which the model file keeps, and
                ``learning``.

        Raises:
            NotExportableError: The network holds something that no device model says.
            ValueError: There is no quantised network yet.
        """
        module, entry = self.quantized_network(), ""
        if example is None:
            example, entry = self._example.input, self._example.entry
        if example is None:
            raise no_example(type(self).__name__, self._example)
        return device_model_of(module, example, entry, **described)[0]

    def save(self, path: str | os.PathLike[str], example: Tensor | None = None) -> None:
        """Writes the quantised network.

        A device model also says how a network that learns by itself goes on learning, or keeps the
        reason why it cannot.

        Args:
            path: A name that ends with ``.qspinn``: the device model, for
                :func:`qspinn.export.load_model`; any other name: parameters and formats, for
                :func:`qspinn.quantizers.load_quantized`.
            example: See :meth:`device_model`, for which it is.

        Raises:
            NotExportableError: The network holds something that no device model says.
            ValueError: There is none yet.
        """
        if os.fspath(path).endswith(MODEL_SUFFIX):
            save_model(self.device_model(example), path)
        else:
            save_quantized(self.quantized_network(), os.fspath(path))

    def quantized_network(self) -> LightningModule:
        """The quantised module of the last fit.

        Raises:
            ValueError: There is none yet.
        """
        module = None if self._last is None else self._last()
        if module is None:
            raise ValueError(f"{type(self).__name__}: there is no quantised network yet; fit first")
        return module

    def _measure(
        self,
        trainer: Trainer,
        module: LightningModule,
        plan: ResolvedPlan,
        others: Sequence[Any] = (),
    ) -> None:
        """Notes what the quantised network computes for one sample, and what it is given."""
        self._last = weakref.ref(module)
        seeker = ExampleSeeker(plan)
        of = (trainer, module, plan, self.forward, self.energy, others)
        self.work = measured_work(*of, seeker)
        self._example = seeker.found()
