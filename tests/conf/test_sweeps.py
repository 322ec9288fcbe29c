"""The W&B sweeps: valid for W&B, and each combination valid for train.py."""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb import wandb_agent

import qspinn.app.run.train  # registers the resolver that conf/train.yaml uses
from qspinn.app.compose.checking import check_targets
from qspinn.app.run.quantization import build_scheme, plan_from_config

CONF = Path(__file__).resolve().parents[2] / "conf"
SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))
# W&B's own schema of sweeps, from its package `sweeps` 0.3.0 (MIT; its licence lies beside it).
SCHEMA = json.loads((Path(__file__).parent / "wandb_schema/sweep.json").read_text())


def loaded(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def values_of(parameter):
    """All values of a parameter, or the ends of its range."""
    if "values" in parameter:
        return parameter["values"]
    return [parameter["value"]] if "value" in parameter else [parameter["min"], parameter["max"]]


def combinations(sweep):
    parameters = sweep["parameters"]
    for values in itertools.product(*map(values_of, parameters.values())):
        yield dict(zip(parameters, values, strict=True))


@pytest.fixture
def agent_command(tmp_path, monkeypatch):
    """Return a function that gives the command line which W&B's own agent makes of a sweep."""
    made = []

    def process(command, env, forward_signals):
        made.append(command)
        return SimpleNamespace(env=env)

    monkeypatch.setattr(wandb_agent, "AgentProcess", process)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_SWEEP_ID"):
        monkeypatch.setenv(name, "unset")

    def command(sweep, values):
        agent = SimpleNamespace(
            _in_jupyter=False,
            _function=None,
            _forward_signals=False,
            _sweep_command=list(sweep["command"]),
            _run_processes={},
        )
        arguments = {name: {"value": value} for name, value in values.items()}
        given = {"run_id": "abc123", "program": sweep["program"], "args": arguments}
        wandb_agent.Agent._command_run(agent, given)
        return made.pop()

    return command


def test_there_are_grids_of_both_networks_and_a_bayesian_one():
    assert {path.stem for path in SWEEPS} == {
        "bayes_supervised",
        "grid_supervised",
        "grid_unsupervised",
    }
    for path in SWEEPS:
        sweep = loaded(path)
        assert sweep["method"] == ("bayes" if path.stem.startswith("bayes") else "grid")
        if sweep["method"] == "grid":
            assert len(list(combinations(sweep))) == 2 * 6 * 3 * 3


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweep_is_valid_for_wandb(path):
    jsonschema.Draft7Validator(SCHEMA).validate(loaded(path))


def test_the_schema_refuses_what_is_wrong():
    sweep = loaded(SWEEPS[0])
    for wrong in ({"method": "gird"}, {"parameters": {"seed": {"valeus": [1]}}}, {"metrik": {}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft7Validator(SCHEMA).validate(sweep | wrong)


@pytest.mark.few(0.2)
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_each_combination_is_a_configuration_of_train(path, agent_command):
    assert qspinn.app.run.train
    sweep = loaded(path)
    all_of_them = list(combinations(sweep))
    # Every value of every parameter at least once: composing takes a tenth of a second.
    seen, few = set(), []
    for values in all_of_them:
        new = set(values.items()) - seen
        if new:
            seen |= new
            few.append(values)
    commands = [agent_command(sweep, values) for values in all_of_them]
    assert len({tuple(command) for command in commands}) == len(all_of_them)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("train", commands[0][3:], return_hydra_config=True)
        assert OmegaConf.select(whole, "hydra.run.dir") == "outputs/wandb_sweep/abc123"
        for values in few:
            command = agent_command(sweep, values)
            assert command[:3] == ["/usr/bin/env", "python", "train.py"]
            config = compose("train", command[3:])
            plain = OmegaConf.to_container(config, resolve=True)
            check_targets(plain)
            build_scheme(plain, plan_from_config(plain["quantization"]))
            for name, value in values.items():
                assert OmegaConf.select(config, name) == value
            assert plain["logger"]["wandb"]["project"] == "qspinn"
