"""Train and quantise a spiking network: the main job. See conf/train.yaml for what can be set."""

from qspinn.app.outputs import protect_outputs
from qspinn.app.signals import ending_as_stopped, stop_on_signals

if __name__ == "__main__":  # before the imports below, which take seconds
    protect_outputs()
    stop_on_signals()

import hydra
from omegaconf import DictConfig

from qspinn.app.compose.command_line import prepare_arguments
from qspinn.app.launch import main
from qspinn.app.orphans import announce_launcher


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def run(config: DictConfig) -> float | tuple[float, ...]:
    """Run one job; a sweeper goes by what it returns."""
    return main(config)


if __name__ == "__main__":
    announce_launcher()
    with ending_as_stopped():
        prepare_arguments()
        run()
