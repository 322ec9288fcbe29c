"""Every configuration that conf/ offers composes, and makes what it says."""

import types
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from spikingjelly.activation_based.model.parametric_lif_net import DVSGestureNet
from spikingjelly.activation_based.neuron import ParametricLIFNode

import qspinn.app.run.train  # registers the resolver that conf/train.yaml uses
from qspinn.app.compose.checking import check_targets
from qspinn.app.errors import ConfigurationError
from qspinn.app.run.building import build_callbacks, build_parts, with_data
from qspinn.app.run.quantization import build_scheme, plan_from_config

CONF = Path(__file__).resolve().parents[2] / "conf"
# Groups of conf/train.yaml; select.yaml and its groups are tested with the selection.
GROUPS = (
    "data",
    "network",
    "learning",
    "quantization",
    "trainer",
    "callbacks",
    "logger",
    "case",
    "launcher",
    "experiment",
)
# Settings of packages that need not be installed: tests/app/explore/test_launchers.py.
FOREIGN = {("launcher", name) for name in ("joblib", "ray", "slurm")}
OPTIONS = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if (group, path.stem) not in FOREIGN
]
NEEDS_FILES = ("mnist", "fashion_mnist")


def composed(*overrides: str) -> dict[str, Any]:
    assert qspinn.app.run.train
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(overrides))
    values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return values


@pytest.mark.few(0.25)
@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_names_classes_that_take_its_keys(group, option):
    values = composed(f"{group}={option}")
    check_targets(values)
    plan = plan_from_config(values["quantization"])
    build_scheme(values, plan)
    build_callbacks(values["callbacks"])


# Which learning rule is for which network.
PAIRS = {
    "conv_snn": "supervised",
    "dvs_gesture_net": "supervised",
    "from_callable": "supervised",
    "decolle": "local",
    "diehl_cook": "stdp",
}


# Five poolings are too many for the 28 pixels of the default data.
SMALLER = {"dvs_gesture_net": ["network.channels=[8,8]"]}


@pytest.mark.parametrize(("network", "learning"), PAIRS.items())
def test_every_network_and_learning_rule_is_made(network, learning):
    smaller = SMALLER.get(network, [])
    parts = build_parts(composed(f"network={network}", f"learning={learning}", *smaller))
    assert parts.module.network is parts.network
    assert parts.module.num_classes == 10
    assert tuple(parts.network.input_shape) == (1, 28, 28)


class Sequences:
    """Stands for data whose samples are sequences."""

    input_shape, num_classes, time_steps = (2, 9, 9), 4, 6


@pytest.mark.parametrize("network", ["conv_snn", "from_callable", "diehl_cook"])
def test_null_takes_the_steps_from_the_data_where_they_have_any(network):
    group = composed(f"network={network}")["network"]
    still = types.SimpleNamespace(input_shape=(1, 9, 9), num_classes=3)
    if network == "diehl_cook":
        assert with_data(group, Sequences())["time_steps"] == 250  # not null: the network's own
    else:
        filled = with_data(group, Sequences())
        assert (filled["input_shape"], filled["num_classes"]) == ((2, 9, 9), 4)
        assert filled["time_steps"] == 6
        assert "time_steps" not in with_data(group, still)


def test_no_network_or_learning_rule_is_forgotten():
    assert sorted(PAIRS) == [path.stem for path in sorted((CONF / "network").glob("*.yaml"))]
    rules = {path.stem for path in (CONF / "learning").glob("*.yaml")}
    assert set(PAIRS.values()) == rules


def test_a_network_that_does_not_learn_by_itself_is_refused():
    with pytest.raises(ConfigurationError, match=r"learning: ConvSNN does not learn by itself"):
        build_parts(composed("network=conv_snn", "learning=stdp"))


@pytest.mark.parametrize("data", NEEDS_FILES)
def test_data_sets_that_need_files_say_where_they_look(data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"data\.root=FOLDER.*data\.download=true"):
        build_parts(composed(f"data={data}", f"data.root={tmp_path}"))


@pytest.mark.parametrize(
    ("data", "file"), [("dvs_gesture", r"DvsGesture\.tar\.gz"), ("nmnist", r"Train\.zip")]
)
def test_event_data_sets_say_where_to_get_their_files(data, file, tmp_path):
    with pytest.raises(ConfigurationError, match=rf"data: {data}: .*{file}.*https://.*data\.root="):
        build_parts(composed(f"data={data}", f"data.root={tmp_path}"))


def test_event_data_sets_take_the_same_frame_settings():
    gesture, nmnist = composed("data=dvs_gesture")["data"], composed("data=nmnist")["data"]
    assert gesture.keys() - nmnist.keys() == {"val_subjects", "valid_only", "max_disorder"}
    assert nmnist.keys() - gesture.keys() == {"val_fraction", "folds", "fold"}


def test_nmnist_is_read_from_its_folder(shared_data):
    parts = build_parts(
        composed(
            "data=nmnist",
            f"data.root={shared_data / 'N-MNIST-small'}",
            "data.cache=null",
            "data.folds=5",
            "data.fold=1",
        )
    )
    assert len(parts.data.train_dataset) + len(parts.data.val_dataset) < 900
    assert tuple(parts.network.input_shape) == (2, 34, 34)


def test_mnist_is_read_from_its_folder(shared_data):
    parts = build_parts(composed("data=mnist", f"data.root={shared_data}"))
    assert len(parts.data.train_dataset) == 55_000


USER_OVERRIDES = [
    ("quantization.scheme=itq", "quantization.scheme", "itq"),
    ("quantization.word_length=6", "quantization.word_length", 6),
    ("quantization.rounding=stochastic", "quantization.rounding", "stochastic"),
    ("quantization.roles.membrane.word_length=10", "quantization.roles.membrane.word_length", 10),
    (
        "quantization.rules=[{layers:*output*,role:weight,word_length:4}]",
        "quantization.rules",
        [{"layers": "*output*", "role": "weight", "word_length": 4}],
    ),
    ("trainer.max_epochs=2", "trainer.max_epochs", 2),
    ("seed=3", "seed", 3),
    ("network.time_steps=6", "network.time_steps", 6),
    ("learning.optimizer.lr=0.01", "learning.scheduler.max_lr", 0.01),
]


@pytest.mark.few(0.3)
@pytest.mark.parametrize(("override", "key", "value"), USER_OVERRIDES)
def test_overrides_reach_their_place(override, key, value):
    before, after = OmegaConf.create(composed()), OmegaConf.create(composed(override))
    assert OmegaConf.select(before, key) != value
    assert OmegaConf.select(after, key) == value


def test_groups_can_be_chosen_together():
    values = composed(
        "data=mnist",
        "data.root=/somewhere",
        "data.download=true",
        "network=conv_snn",
        "network.time_steps=6",
        "logger=wandb",
    )
    assert values["data"]["_target_"] == "qspinn.data.MNIST"
    assert (values["data"]["root"], values["data"]["download"]) == ("/somewhere", True)
    assert values["logger"]["wandb"]["project"] == "qspinn"
    fashion = composed("data=fashion_mnist", "data.root=x")["data"]
    assert fashion["_target_"] == "qspinn.data.FashionMNIST"
    assert fashion.keys() == values["data"].keys()


def test_the_experiment_changes_data_and_training():
    values = composed("experiment=mnist_full")
    assert values["data"]["_target_"] == "qspinn.data.MNIST"
    assert values["trainer"]["max_epochs"] != composed()["trainer"]["max_epochs"]


STDP_OVERRIDES = [
    ("network.stdp.rate_post=0.01", "network.stdp.rate_post", 0.01),
    ("network.stdp.update=deferred", "network.stdp.update", "deferred"),
    ("network.settings.inhibition_delay=1", "network.settings.inhibition_delay", 1),
    ("network.neurons=1600", "network.neurons", 1600),
    ("network.backend=reference", "network.backend", "reference"),
    ("learning.readout=ridge", "learning.readout", "ridge"),
    ("quantization.word_length=4", "quantization.word_length", 4),
    ("quantization.roles.theta.word_length=10", "quantization.roles.theta.word_length", 10),
]


@pytest.mark.few(0.3)
@pytest.mark.parametrize(("override", "key", "value"), STDP_OVERRIDES)
def test_overrides_of_an_experiment_reach_their_place(override, key, value):
    experiment = "experiment=unsupervised_quick"
    before = OmegaConf.create(composed(experiment))
    after = OmegaConf.create(composed(experiment, override))
    assert OmegaConf.select(before, key) != value
    assert OmegaConf.select(after, key) == value


@pytest.mark.parametrize(
    ("experiment", "data", "neurons", "images"),
    [
        ("unsupervised_quick", "MNISTSubset", 100, 3500),
        ("unsupervised_mnist", "MNIST", 400, 55_000),
        ("unsupervised_learned_few_bits", "MNIST", 400, 55_000),
    ],
)
def test_learning_without_labels(experiment, data, neurons, images, shared_data):
    root = () if experiment == "unsupervised_quick" else (f"data.root={shared_data}",)
    values = composed(f"experiment={experiment}", *root)
    assert values["data"]["_target_"] == f"qspinn.data.{data}"
    assert values["data"]["max_shift"] == 0
    trainer = values["trainer"]
    assert trainer["gradient_clip_val"] is None  # Lightning refuses them without an optimizer
    assert trainer["accumulate_grad_batches"] == 1
    parts = build_parts(values)
    assert parts.network.neurons == neurons
    assert len(parts.data.train_dataset) == images
    assert type(parts.module).__name__ == "UnsupervisedLearning"


def test_the_plan_for_stdp_gives_each_role_its_word_length():
    values = composed("experiment=unsupervised_quick", "quantization.word_length=5")
    parts = build_parts(values)
    plan = plan_from_config(values["quantization"]).resolve(parts.module)
    lengths = {tensor.path: tensor.word_length for tensor in plan.tensors}
    assert lengths.pop("network.weight") == 5
    assert lengths.pop("readout.shares") == 8
    assert set(lengths.values()) == {16}
    assert {tensor.role for tensor in plan.tensors} == {
        "weight",
        "membrane",
        "threshold",
        "theta",
        "trace",
        "decay",
    }


@pytest.mark.parametrize(
    "override",
    [
        "unknown=1",
        "network.time_stepz=3",
        "quantization.wordlength=3",
        "quantization.roles.membrana.word_length=3",
        "trainer.max_epoch=3",
        "data=nonesuch",
    ],
)
def test_unknown_keys_are_errors(override):
    with pytest.raises(ConfigCompositionException):
        composed(override)


def test_the_plan_of_the_group_is_what_it_says():
    values = composed(
        "quantization.word_length=6",
        "quantization.roles.weight.levels=symmetric",
        "quantization.roles.membrane.word_length=10",
        "quantization.rules=[{layers:*output*,role:weight,format:Q0.3}]",
    )
    assert plan_from_config(values["quantization"]).to_dict()["rules"] == [
        {
            "layers": "*",
            "role": "*",
            "word_length": 6,
            "rounding": "nearest",
            "overflow": "saturate",
            "calibration": "mse",
            "granularity": "tensor",
            "scale": "power_of_two",
        },
        {"layers": "*", "role": "weight", "levels": "symmetric"},
        {"layers": "*", "role": "membrane", "word_length": 10},
        {"layers": "*output*", "role": "weight", "format": "Q0.3"},
    ]


EVENT_EXPERIMENTS = [
    ("nmnist", "NMNIST", "ConvSNN", 6),
    ("dvs_gesture_bptt", "DVSGesture", "ConvSNN", 16),
    ("synthetic_gesture", "SyntheticGesture", "ConvSNN", 16),
    ("synthetic_gesture_quick", "SyntheticGesture", "ConvSNN", 10),
]


@pytest.mark.parametrize(("experiment", "data", "network", "steps"), EVENT_EXPERIMENTS)
def test_experiments_on_events(experiment, data, network, steps):
    values = composed(f"experiment={experiment}")
    assert values["data"]["_target_"] == f"qspinn.data.{data}"
    assert values["network"]["_target_"] == f"qspinn.networks.{network}"
    module = instantiate(values["data"])
    group = with_data(values["network"], module)
    assert group["time_steps"] == module.time_steps == steps
    made = instantiate(group)
    assert tuple(made.input_shape) == module.input_shape
    assert made.num_classes == module.num_classes


@pytest.mark.parametrize("experiment", ["nmnist_decolle", "dvs_gesture_decolle"])
def test_experiments_that_learn_events_layer_by_layer(experiment):
    values = composed(f"experiment={experiment}")
    assert values["learning"]["_target_"] == "qspinn.learning.LocalLearning"
    module = instantiate(values["data"])
    made = instantiate(with_data(values["network"], module))
    assert (made.input_shape, made.num_classes) == (module.input_shape, module.num_classes)
    assert 0 < made.burn_in < module.time_steps == made.time_steps
    assert made.layers[0].settings.readout_dropout == 0.5
    assert made.layers[0].whole_inputs


def test_dvs_gesture_bptt_is_spikingjelly_s_network():
    values = composed("experiment=dvs_gesture_bptt")
    net = instantiate(with_data(values["network"], instantiate(values["data"])))
    peer = DVSGestureNet(128, ParametricLIFNode)
    ours, theirs = net.state_dict(), peer.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    smaller = composed(
        "experiment=dvs_gesture_bptt",
        "data.downsample=4",
        "network.channels=[32,32,32,32,32]",
        "network.hidden=128",
    )
    small = instantiate(with_data(smaller["network"], instantiate(smaller["data"])))
    assert small.hidden.linear.in_features == 32


def test_decolle_learns_from_whole_sequences_of_synthetic_gestures():
    values = composed("experiment=synthetic_gesture_decolle")
    data = instantiate(values["data"])
    parts = with_data(values["network"], data)
    network = instantiate(parts)
    assert values["learning"]["_target_"] == "qspinn.learning.LocalLearning"
    assert (type(data).__name__, data.val_subjects) == ("SyntheticGesture", 3)
    assert (network.input_shape, network.num_classes) == (data.input_shape, 11)
    assert network.burn_in < data.time_steps
