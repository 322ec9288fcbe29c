"""Groups and keys that users delete or set to null."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from qspinn.app.compose.command_line import CONFIG_FOLDER, prepare_arguments, without_null_groups
from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.errors import ConfigurationError
from qspinn.app.run.train import train
from qspinn.records import read_record

GROUPS = sorted(
    path.name for path in CONFIG_FOLDER.iterdir() if path.is_dir() and path.name != "hydra"
)
NEEDED = ("data", "network", "learning", "trainer", "quantization")


def config_of(*overrides):
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.mark.few(0.1)
@pytest.mark.parametrize("argument", ["~logger", "~callbacks", "logger=null", "callbacks=null"])
def test_a_run_without_logger_or_callbacks(composed, tmp_path, argument):
    config = composed("trainer.max_epochs=1", without_null_groups(argument))

    record = train(config, tmp_path)

    assert read_record(tmp_path / "record.json") == record
    assert (record.checkpoint is None) == ("callbacks" in argument)
    name = argument.strip("~").partition("=")[0]
    assert record.config[name] == {}
    # The same by any of the ways to say it: the folder is done.
    again = train(composed("trainer.max_epochs=1", f"~{name}"), tmp_path)
    assert again == record


def test_null_in_the_command_line_is_no_traceback(launch, tmp_path):
    done = launch(
        "logger=null", "callbacks=null", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert read_record(tmp_path / "record.json").config["callbacks"] == {}
    done = launch("data=null", f"hydra.run.dir={tmp_path / 'other'}")
    # `data.batch_size` is set by the test: Hydra itself says that there is no such key any more.
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.few(0.25)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("how", ["~{}", "{}=null", "+{}=NULL"])
def test_every_group_may_be_deleted_or_nulled(group, how):
    argument = without_null_groups(how.format(group))
    if group == "sweep":  # files for `wandb sweep`, none of Hydra's
        return
    config = config_of(argument)
    if group in NEEDED:
        with pytest.raises(
            ConfigurationError, match=rf"{group} is missing or null; write {group}="
        ):
            complete(config)
    else:
        assert to_plain(complete(config))["seed"] == 0


def without(config, *keys):
    OmegaConf.set_struct(config, False)
    for key in keys:
        parent, _, last = key.rpartition(".")
        del (OmegaConf.select(config, parent) if parent else config)[last]
    return config


@pytest.mark.slow
def test_what_can_go_without_saying_may_be_deleted(composed, tmp_path):
    one_step = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "+trainer.max_steps=1")
    groups = without(
        composed(*one_step), "threads", "progress", "fresh", "baselines", "exploration"
    )
    keys = [f"trainer.{name}" for name in ("max_epochs", "precision", "gradient_clip_val")]
    keys += [f"trainer.{name}" for name in ("limit_train_batches", "accumulate_grad_batches")]
    keys += [f"exploration.{name}" for name in ("strategy", "workers", "unit", "evaluations")]
    keys += ["baselines.dir", "baselines.train_for_itq"]
    keys += [f"quantization.{name}" for name in ("rules", "roles", "compile_steps", "start_epoch")]
    for number, config in enumerate((groups, without(composed(*one_step), *keys))):
        assert train(config, tmp_path / str(number)).scheme == "ptq"


@pytest.mark.parametrize(
    "key",
    ["seed", "quantization.scheme", "quantization.word_length", "quantization.rounding"]
    + [f"{group}._target_" for group in ("data", "network", "learning", "trainer")],
)
def test_what_must_be_said_is_named(composed, tmp_path, key):
    with pytest.raises(ConfigurationError, match=rf"^{key} is missing or null; write .*="):
        train(without(composed(), key), tmp_path)


def test_a_value_that_refers_to_what_was_deleted_is_named():
    config = config_of("logger=wandb", "~quantization.scheme", "+quantization.scheme=itq")
    assert to_plain(config)["logger"]["wandb"]["job_type"] == "itq"
    with pytest.raises(
        ConfigurationError, match=r"logger\.wandb\.job_type: .*scheme.*write the value"
    ):
        to_plain(config_of("logger=wandb", "~quantization.scheme"))


def test_an_entry_without_a_class_says_what_to_write(composed, tmp_path):
    for override in ("callbacks.pictures={}", "+callbacks.mine={patience:3}", "+logger.mine=true"):
        place = override.strip("+").partition("=")[0]
        message = rf"{place}=.* names no class; write {place}\._target_=CLASS, or {place}=null"
        config = composed(override)
        if override.startswith("callbacks.pictures"):
            config.callbacks.pictures = {}
        with pytest.raises(ConfigurationError, match=message):
            train(config, tmp_path)


def test_null_among_other_options_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "logger=null,wandb"])
    with pytest.raises(SystemExit) as caught:
        prepare_arguments()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: logger=null,wandb: null is no option")
    assert "csv, wandb" in error


def test_the_flag_of_a_multirun_may_stand_anywhere(monkeypatch):
    given = ["train.py", "seed=1,2", "-m", "logger=null", "--cfg", "job"]
    monkeypatch.setattr("sys.argv", given)
    prepare_arguments()
    assert given == ["train.py", "-m", "seed=1,2", "~logger", "--cfg", "job"]


@pytest.mark.parametrize(
    "argument",
    ["data.root=null", "seed=null", "runs=null", "logger=csv", "case=a,b", "-m"],
)
def test_what_is_no_null_of_a_group_is_left_alone(argument):
    assert without_null_groups(argument) == argument
    if argument != "-m":
        OverridesParser.create().parse_override(argument)
