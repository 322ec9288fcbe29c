"""Pictures of what a network does with a few test samples, before and after quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from spikingjelly.activation_based import neuron
from torch import Tensor

from qspinn.app.examples import as_the_module, first_test_samples
from qspinn.app.show.pictures import hand_out, quantized_copies, show_on_loggers
from qspinn.callbacks.isolation import independent_copy, preserved_globals
from qspinn.metrics import record_activity
from qspinn.plan import reset_states
from qspinn.quantizers import detach, is_attached
from qspinn.quantizers.neuron import network_potentials

if TYPE_CHECKING:
    from qspinn.report.activity import LayerActivity

MOST_CLIPS = 4


class ActivityPictures(Callback):
    """Draws what the first test samples look like and what neurons do with them.

    That is after a test or, where a copy was quantised after training, at the end of the fit.

    * ``events.gif``: the first samples, where they are sequences of frames ``[N, T, 2, H, W]``;
    * ``spikes.png``: spikes of every neuron layer for the first sample;
    * ``membranes.png``: histograms of the potentials of every neuron layer.

    The last two show the network in 32-bit beside the quantised one, where there is one: the copy
    that was quantised after training, or the network that learned in fixed point, whose float
    parameters are then shown in 32-bit. Networks without SpikingJelly's neurons have neither.
    Loggers that show images (``log_image``) or clips (``log_video``) get them too.

    Args:
        samples: Number of test samples.

    Raises:
        ValueError: Fewer than 1.
    """

    def __init__(self, samples: int = 8) -> None:
        if samples < 1:
            raise ValueError(f"samples={samples}; write 1 or more")
        self.samples = samples
        self._input: Tensor | None = None

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, *indices: int
    ) -> None:
        """Keep the first samples."""
        first = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not any(indices) and isinstance(first, Tensor):
            self._input = first[: self.samples].detach().clone()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them if a copy was quantised: a training from the store is not tested again."""
        data = getattr(trainer, "datamodule", None)
        if data is not None and any(quantized_copies(trainer)):
            self._draw(trainer, pl_module, first_test_samples(data, self.samples))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them, unless they are drawn already."""
        x, self._input = self._input, None
        if x is not None and not any(quantized_copies(trainer)):
            self._draw(trainer, pl_module, x)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, x: Tensor) -> None:
        """Draw the samples and the activity of the network."""
        if len(x) == 0 or not trainer.is_global_zero:
            return
        if x.ndim == 5 and x.shape[2] == 2:
            _hand_out_clip(trainer, x)
        x = as_the_module(x, pl_module)
        with preserved_globals(), trainer.precision_plugin.forward_context():
            runs = {
                name: activity_of(module, x)
                for name, module in _before_and_after(trainer, pl_module).items()
            }
        runs = {name: run for name, run in runs.items() if run}
        if runs:
            _hand_out_figures(trainer, runs, len(x))


def activity_of(module: LightningModule, x: Tensor) -> dict[str, LayerActivity]:
    """What the neuron layers of a copy of ``module`` do with an input: path -> arrays."""
    from qspinn.report.activity import LayerActivity

    if not any(isinstance(child, neuron.BaseNode) for child in module.modules()):
        return {}
    copied = independent_copy(module).to(x.device).eval()
    with torch.no_grad(), record_activity(copied) as recorded:
        reset_states(copied)
        copied(x)
    reset_states(copied)
    found = {}
    for path, one in recorded.items():
        potentials = network_potentials(copied.get_submodule(path), one.potentials)
        found[path] = LayerActivity(_array(one.spikes), _array(potentials), one.threshold)
    return found


def _array(values: Tensor) -> Any:
    return values.float().cpu().numpy()


def _before_and_after(trainer: Trainer, module: LightningModule) -> dict[str, LightningModule]:
    if is_attached(module):
        return {"32-bit": detach(independent_copy(module)), "quantised": module}  # type: ignore[dict-item]
    found = {"32-bit": module}
    for _, copied in quantized_copies(trainer):
        found.setdefault("quantised", copied)
    return found


@rank_zero_only
def _hand_out_clip(trainer: Trainer, x: Tensor) -> None:
    from qspinn.report.clips import save_clip

    clips = [_array(sample) for sample in x[:MOST_CLIPS]]
    path = save_clip(clips, Path(trainer.default_root_dir) / "events.gif")
    show_on_loggers(trainer, "events", path)


@rank_zero_only
def _hand_out_figures(
    trainer: Trainer, runs: Mapping[str, Mapping[str, LayerActivity]], samples: int
) -> None:
    from qspinn.report.activity import draw_potentials, draw_rasters

    hand_out(trainer, "spikes", draw_rasters(runs, "Spikes of the first test sample"))
    title = f"Membrane potentials, {samples} test samples"
    hand_out(trainer, "membranes", draw_potentials(runs, title))
