"""Pictures of a run in its output folder, and on the loggers that show pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torchmetrics import Metric

from qspinn.callbacks import PostTrainingQuantization

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures(Callback):
    """Draws what a network learned at the end of a fit, and its confusion matrix in a test.

    * ``weights.png``: the incoming weights of every neuron, for a network with ``weight``
      ``[inputs, neurons]`` and ``input_shape``;
    * ``confusion_matrix.png``: for a learning module whose ``confusion`` is a metric ``[C, C]``.

    A copy that was quantised, and tested, after training has pictures of its own, with its prefix
    before their names (``ptq_weights.png``). Files are replaced as a whole. Loggers with a method
    ``log_image``, such as W&B's, get them too.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the weights; of quantised copies all pictures."""
        _draw_weights(trainer, "", pl_module)
        for prefix, module in quantized_copies(trainer):
            _draw_weights(trainer, prefix, module)
            _draw_confusion(trainer, prefix, module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the confusion matrix."""
        _draw_confusion(trainer, "", pl_module)


def _draw_weights(trainer: Trainer, prefix: str, module: LightningModule) -> None:
    from qspinn.report.pictures import draw_weights

    network = getattr(module, "network", None)
    weight = getattr(network, "weight", None)
    shape = getattr(network, "input_shape", None)
    if isinstance(weight, Tensor) and weight.ndim == 2 and shape is not None:
        values = weight.detach().float().cpu().numpy()
        title = f"Weights of {values.shape[1]} neurons"
        hand_out(trainer, f"{prefix}weights", draw_weights(values, shape, title))


def _draw_confusion(trainer: Trainer, prefix: str, module: LightningModule) -> None:
    from qspinn.report.pictures import draw_confusion

    confusion = getattr(module, "confusion", None)
    if isinstance(confusion, Metric) and confusion.update_called:
        figure = draw_confusion(confusion.compute().cpu().numpy(), "Test images")
        hand_out(trainer, f"{prefix}confusion_matrix", figure)


def quantized_copies(trainer: Trainer) -> Iterator[tuple[str, LightningModule]]:
    """The copies that were quantised after training, with their prefixes."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if not isinstance(callback, PostTrainingQuantization):
            continue
        if callback.quantized_module is not None:
            yield callback.prefix, callback.quantized_module


@rank_zero_only
def hand_out(trainer: Trainer, name: str, figure: Figure) -> None:
    """Write a figure into the output folder, and show it on the loggers."""
    from qspinn.report.pictures import save_png

    path = save_png(figure, Path(trainer.default_root_dir) / f"{name.replace('/', '_')}.png")
    show_on_loggers(trainer, name, path)


def show_on_loggers(trainer: Trainer, name: str, path: Path) -> None:
    """Log a picture to every logger that supports images; a GIF as a clip where supported."""
    for logger in trainer.loggers:
        log_image, log_video = (
            getattr(logger, method, None) for method in ("log_image", "log_video")
        )
        if path.suffix == ".gif" and callable(log_video):
            log_video(key=name, videos=[str(path)], step=trainer.global_step)
        elif callable(log_image):
            log_image(key=name, images=[str(path)], step=trainer.global_step)
