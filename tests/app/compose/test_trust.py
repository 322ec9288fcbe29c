"""What a configuration may not do, though it may name any class."""

import pytest

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.train import train


@pytest.mark.parametrize("place", ["+callbacks.bad", "+logger.bad"])
@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.run"])
def test_functions_that_run_commands_are_refused(composed, tmp_path, place, target):
    mark = tmp_path / "executed"
    name = {"os.system": "command", "builtins.eval": "source", "subprocess.run": "args"}[target]
    text = f"open('{mark}', 'w')" if target == "builtins.eval" else f"touch {mark}"
    config = composed(
        f"{place}._target_={target}", f'{place}.{name}="{text}"', "+trainer.fast_dev_run=false"
    )
    with pytest.raises(ConfigurationError, match=target.rpartition(".")[2]):
        train(config, tmp_path / "run")
    assert not mark.exists()
    assert not (tmp_path / "run" / "record.json").exists()


def test_the_configuration_in_a_folder_is_read_and_never_run(composed, tmp_path):
    """A run that goes on compares the configuration there; it makes objects of its own only."""
    folder, mark = tmp_path / "run", tmp_path / "executed"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"data: !!python/object/apply:os.system ['touch {mark}']\n")
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        train(composed(), folder)
    assert not mark.exists()
