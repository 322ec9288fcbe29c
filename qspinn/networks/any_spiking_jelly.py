"""Any module of SpikingJelly layers as a classifier: batches in, class scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from spikingjelly.activation_based import base, functional
from torch import Tensor, nn

from qspinn.networks.checks import check_at_least, check_choice, check_input, check_shape

STEP_MODES = ("m", "s")
DEFAULT_STEPS = 4


class AnySpikingJelly(nn.Module):
    """Gives a module of SpikingJelly layers what a learning rule here expects of a network.

    Batches ``[N, ...]`` become sequences ``[T, N, ...]``, all layers run in one step mode from
    freshly reset states, and what comes out is averaged over time.

    Args:
        module: Takes ``[T, N, C, H, W]`` and returns class scores ``[T, N, classes]`` (a score per
            time step) or ``[N, classes]``; with ``step_mode="s"`` takes ``[N, C, H, W]`` of one
            time step and returns ``[N, classes]``. Spikes, rates and potentials are all fine.
        input_shape: Shape ``(C, H, W)`` of an image or frame.
        num_classes: Classes.
        time_steps: Steps T for which a static image is shown, and that a sequence must have. None:
            sequences of any length, and 4 for a static image.
        step_mode: ``m``: the module takes all time steps at once; ``s``: one at a time. Set in all
            its layers.

    Raises:
        ValueError: No module, one without a SpikingJelly layer, or a size out of range.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        num_classes: int,
        time_steps: int | None = None,
        step_mode: str = "m",
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ValueError(
                f"module={module!r} is no torch.nn.Module: write network.module._target_=NAME of a "
                "class or function that returns one"
            )
        if not any(isinstance(child, base.MemoryModule) for child in module.modules()):
            raise ValueError(
                f"module={type(module).__name__} has no layer of SpikingJelly that keeps a state "
                "over time, so nothing in it spikes; write a network with SpikingJelly neurons"
            )
        check_choice("step_mode", step_mode, STEP_MODES)
        check_at_least(1, num_classes=num_classes)
        if time_steps is not None:
            check_at_least(1, time_steps=time_steps)
        self.input_shape = check_shape(input_shape)
        self.num_classes = num_classes
        self.time_steps = time_steps
        self.step_mode = step_mode
        self.name = type(module).__name__
        self.module = module
        functional.set_step_mode(module, step_mode)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, from freshly reset states.

        Args:
            x: Static images ``[N, C, H, W]``, or sequences ``[N, T, C, H, W]``.

        Returns:
            ``[N, num_classes]``, averaged over time, in float32 at least.

        Raises:
            ValueError: Another shape, another number of steps, or a module that refuses the input
                or puts out something that is no class score.
        """
        sequence = self._sequence(x)
        functional.reset_net(self.module)
        try:
            scores = self._scores(sequence)
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} cannot take an input {list(sequence.shape)} [T, N, C, H, W] in "
                f"step_mode={self.step_mode}: {error}"
            ) from error
        mean = self._averaged(scores, sequence)
        return mean.to(torch.promote_types(mean.dtype, torch.float32))

    def _sequence(self, x: Tensor) -> Tensor:
        check_input(x, self.input_shape, self.time_steps)
        if x.ndim == 4:
            return x.expand(self.time_steps or DEFAULT_STEPS, *x.shape)
        return x.transpose(0, 1)

    def _scores(self, sequence: Tensor) -> object:
        if self.step_mode == "m":
            return self.module(sequence)
        steps = [self.module(frame) for frame in sequence]
        stackable = all(isinstance(step, Tensor) for step in steps)
        return torch.stack(steps) if stackable else steps[0]

    def _averaged(self, scores: object, sequence: Tensor) -> Tensor:
        steps, batch = sequence.shape[:2]
        expected = (
            f"expected class scores [T, N, classes] = {[steps, batch, self.num_classes]} or "
            f"[N, classes] = {[batch, self.num_classes]}"
        )
        if not isinstance(scores, Tensor):
            raise ValueError(f"{self.name} returned a {type(scores).__name__}: {expected}")
        if scores.shape == (batch, self.num_classes):
            return scores
        if scores.shape == (steps, batch, self.num_classes):
            return scores.mean(0)
        raise ValueError(
            f"{self.name} made {list(scores.shape)} from an input {list(sequence.shape)} "
            f"[T, N, C, H, W]: {expected}{self._reason(scores, steps, batch)}"
        )

    def _reason(self, scores: Tensor, steps: int, batch: int) -> str:
        """What to write instead, where the shape tells."""
        shape = tuple(scores.shape)
        if shape in ((batch, shape[-1]), (steps, batch, shape[-1])):
            return (
                f"; the module has {shape[-1]} classes and the data {self.num_classes}: give it "
                "its number of classes as an argument (often network.module.num_classes)"
            )
        if shape == (batch, steps, self.num_classes):
            return "; time comes first: the module must not swap it with the batch"
        if len(shape) == 5 or len(shape) == 4:
            return "; the module ends without a classifier: flatten and a linear layer are missing"
        return ""
