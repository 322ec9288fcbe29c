"""What could not work fails before anything is trained, in one sentence that says what to write."""

import pytest
from hydra import compose, initialize_config_dir

from qspinn.app.compose.limits import check_known_keys
from qspinn.app.errors import ConfigurationError
from qspinn.app.run.train import train
from qspinn.learning import SupervisedLearning, UnsupervisedLearning

QUICK = "experiment=unsupervised_quick"
ITQ = "quantization.scheme=itq"
RELU = "{_target_:torch.nn.ReLU}"
NO_SCHEDULE = ("learning.scheduler=null", "learning.optimizer.lr=0")
STOP = "{_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss}"
WRONG = [
    (("trainer.max_epochs=-1",), r"trainer\.max_epochs=-1; write 1 or more"),
    (("trainer.max_epochs=null",), r"trainer\.max_epochs=null; write 1 or more"),
    (("trainer.max_epochs=0",), r"trainer\.max_epochs=0 trains nothing; write 1 or more"),
    (("trainer.max_epochs=2.5",), r"trainer\.max_epochs=2\.5; write"),
    (("trainer.max_epochs=true",), r"trainer\.max_epochs=True; write"),
    (("+trainer.min_epochs=9",), r"trainer\.min_epochs=9; write 0 to trainer\.max_epochs=3"),
    (("+trainer.max_steps=0",), r"trainer\.max_steps=0; write 1 or more, or -1"),
    (("+trainer.max_steps=-5",), r"trainer\.max_steps=-5; write"),
    (("trainer.accumulate_grad_batches=0",), r"accumulate_grad_batches=0; write 1 or more"),
    (("trainer.check_val_every_n_epoch=0",), r"check_val_every_n_epoch=0; write 1 or more"),
    (("trainer.check_val_every_n_epoch=4",), r"every_n_epoch=4; write 1 to trainer\.max_epochs=3"),
    (("trainer.limit_test_batches=0",), r"limit_test_batches=0; write 1 or more batches"),
    (("trainer.limit_test_batches=0.0",), r"limit_test_batches=0\.0; write"),
    (("trainer.limit_train_batches=0",), r"limit_train_batches=0 trains nothing; write 1 or more"),
    (("trainer.limit_train_batches=-3",), r"limit_train_batches=-3; write"),
    (("trainer.limit_train_batches=1.5",), r"limit_train_batches=1\.5; write"),
    (("trainer.limit_train_batches=0.0001",), r"=0\.0001; write 0\.0\d+ or more, or 1: there are"),
    (("trainer.limit_test_batches=0.1",), r"limit_test_batches=0\.1; write 0\.5 or more"),
    (("trainer.gradient_clip_val=-1",), r"gradient_clip_val=-1; write a number above 0"),
    (("+trainer.num_nodes=2",), r"trainer\.num_nodes=2; write 1"),
    (("trainer.devices=2",), r"trainer\.devices=2; write 1: a run trains on one device"),
    (("trainer.devices=[0,1]",), r"trainer\.devices=\[0, 1\]; write 1"),
    (("+trainer.fast_dev_run=true",), r"fast_dev_run=True; write trainer\.max_epochs=1"),
    (("trainer.accelerator=gpu",), r"trainer: .*"),
    (("data.num_workers=1000",), r"data\.num_workers=1000; write at most \d+"),
    (("threads=100000",), r"threads=100000; write at most \d+"),
    (("network.num_classes=3",), r"network\.num_classes=3; write 10 or null"),
    (("learning.num_classes=9",), r"learning\.num_classes=9; write 10 or null"),
    (("network.num_classes=12", "learning.num_classes=11"), r"write 12, as network\.num_classes"),
    (("learning.optimizer=null", "learning.scheduler=null"), r"learning\.optimizer=null; write"),
    (("learning.optimizer.lr=-1",), r"learning\.optimizer\.lr=-1; write a learning rate above 0"),
    (("callbacks.checkpoint.every_n_epochs=0",), r"callbacks\.checkpoint: every_n_epochs=0; write"),
    ((ITQ, "quantization.start_epoch=3"), r"start_epoch=3; write 0 to 2"),
    ((ITQ, "quantization.freeze_epoch=7"), r"freeze_epoch=7; write 0 to 2"),
    (("trainer=null",), r"trainer"),
    (("trainer.limit_val_batches=0.0001",), r"limit_val_batches=0\.0001; write 1 or more"),
    (("+trainer.max_time=00:00:10:00",), r"trainer\.max_time='00:00:10:00'; write .*max_epochs"),
    (("+trainer.max_steps=null",), r"trainer\.max_steps=null; write a whole number"),
    (("+trainer.max_steps=2", "+trainer.min_steps=3"), r"min_steps=3; write 0 to .*max_steps=2"),
    (("trainer.num_sanity_val_steps=-5",), r"num_sanity_val_steps=-5; write 0 \(none\) or more"),
    (("+trainer.val_check_interval=0",), r"val_check_interval=0; write 1 or more batches"),
    (("+trainer.val_check_interval=100",), r"val_check_interval=100; write 1 to 4, the batches"),
    (("+trainer.callbacks=[]",), r"trainer\.callbacks=\[\]; write the group callbacks"),
    (("+trainer.logger=false",), r"trainer\.logger=False; write the group logger"),
    (("+trainer.plugins=[]",), r"trainer\.plugins=\[\]; write none"),
    (("+trainer.default_root_dir=x",), r"default_root_dir='x'; write hydra\.run\.dir=FOLDER"),
    (("+trainer.enable_progress_bar=true",), r"enable_progress_bar=True; write progress="),
    (("+trainer.barebones=true",), r"trainer\.barebones=True; write false"),
    (("+trainer.overfit_batches=2",), r"overfit_batches=2; write trainer\.limit_train_batches"),
    (("learning.scheduler.max_lr=0",), r"scheduler\.max_lr=0; write a learning rate above 0"),
    (("learning.scheduler.max_lr=-1",), r"scheduler\.max_lr=-1; write a learning rate above 0"),
    (("learning.scheduler.max_lr=null",), r"scheduler\.max_lr=null; write a number"),
    (NO_SCHEDULE, r"learning\.optimizer\.lr=0; write a learning rate above 0"),
    (("learning.optimizer.lr=null",), r"lr=null; write a number"),
    (("learning.optimizer.weight_decay=null",), r"weight_decay=null; write a number"),
    (("learning.optimizer._partial_=null",), r"optimizer\._partial_=null; write true or false"),
    (
        ("learning.scheduler=x",),
        r"learning\.scheduler='x'; write a _target_ and its values or null",
    ),
    (("network.neuron=x",), r"network\.neuron='x'; write a _target_ and its values"),
    (("network._target_=5",), r"network\._target_=5; write the dotted name of a class"),
    (("quantization.rules=x",), r"quantization: rules is a str; write a list of rules"),
    (("quantization.rules=5",), r"quantization: rules is a int; write a list of rules"),
    (("quantization.roles=x",), r"quantization: .*roles='x'; write a dictionary"),
    (("+learning.scheduler.total_steps=1",), r"total_steps=1; write null .*max_epochs=3 or more"),
    (("learning.num_classes=12",), r"learning\.num_classes=12; write 10, as network\.num_classes"),
    (("network.num_classes=12",), r"network\.num_classes=12; write 10 or null, as the data"),
    (("callbacks.checkpoint.every_n_epochs=null",), r"every_n_epochs=null; write a whole number"),
    (("data.batch_size=null",), r"data\.batch_size=null; write a whole number"),
    (("network.channels=null",), r"network\.channels=null; write a list of a whole number"),
    (("network.neuron.v_threshold=1e30",), r"v_threshold=1e\+30: no format holds it.*write less"),
    (("trainer._target_=torch.nn.Identity",), r"trainer\._target_ makes a Identity; write"),
    (("trainer._target_=builtins.dict",), r"trainer\._target_ makes a dict; write"),
    ((f"+callbacks.mine={RELU}",), r"callbacks\.mine\._target_ makes a ReLU; write"),
    ((f"+callbacks.stop={STOP}", "trainer.limit_val_batches=0"), r"callbacks\.stop\.monitor='val/"),
    ((QUICK, "network.settings=x"), r"network\.settings='x'; write a _target_ and its values"),
    ((QUICK, "network.settings.theta_max=1e30"), r"network\.v, which goes from -120\.0 to 1e\+30"),
    ((QUICK, "network.stdp.tau_pre=1e30"), r"network\.leak_pre: the leak becomes 0 in"),
    ((QUICK, "network.backend=triton"), r"network\.backend='triton'; write auto, numba or torch"),
    (("quantization.scheme=ptq", "quantization.word_length=1"), r"would fire at every step; write"),
    ((ITQ, "quantization.word_length=1"), r"would fire at every step; write"),
    (("quantization.roles.threshold.format=Q8.-7", "network.neuron.v_threshold=0.3"), r"threshold"),
    ((ITQ, "quantization.roles.threshold.format=Q8.-7"), r"threshold"),
]


@pytest.fixture(autouse=True)
def nothing_is_learned(monkeypatch):
    """A training that begins is a failure of the test."""

    def learning(self, *args, **kwargs):
        raise AssertionError("this was trained")

    for owner in (SupervisedLearning, UnsupervisedLearning):
        monkeypatch.setattr(owner, "training_step", learning)


@pytest.mark.few(0.25)
@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_it_is_refused_before_training(composed, tmp_path, monkeypatch, overrides, message):
    nulls = [text for text in overrides if text == "trainer=null"]
    config = composed(*(text for text in overrides if text not in nulls))
    if nulls:
        config.trainer = None
    with pytest.raises(ConfigurationError, match=message) as raised:
        train(config, tmp_path / "run")
    assert len(str(raised.value)) < 1000
    assert not (tmp_path / "run" / "record.json").exists()


UNKNOWN = [
    ("+nonsense=1", "nonsense: nothing reads this key; there are"),
    ("+trainr.max_epochs=3", "trainr: nothing reads this key; did you mean trainer"),
    ("+quantization.word_lenght=4", "did you mean quantization.word_length"),
    ("+baselines.folder=x", "baselines.folder: nothing reads this key"),
    ("+exploration.worker=2", "did you mean exploration.workers"),
]


@pytest.mark.parametrize(("override", "message"), UNKNOWN)
def test_keys_that_nothing_reads_are_refused(repository, override, message):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("train", [override])
    with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
        check_known_keys(config)


@pytest.mark.slow
def test_a_key_that_another_value_refers_to_is_read(repository):
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("train", ["+width=8", "network.population=${width}"])
        check_known_keys(config)
        for experiment in sorted((repository / "conf" / "experiment").glob("*.yaml")):
            check_known_keys(compose("train", [f"experiment={experiment.stem}"]))
