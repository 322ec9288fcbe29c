"""Frames of a data set: how recordings become frames, batches of them, the cache's arithmetic."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from qspinn.data import EventDataModule, Events, integrate
from qspinn.data.frame_set import (
    FrameDataset,
    FrameSet,
    FrameSettings,
    Recordings,
    fingerprint,
    load_frame_set,
)
from qspinn.data.tensor_dataset import batch_loader

SIZE = 23


def events_of(index: int) -> Events:
    rng = np.random.default_rng(index)
    count = 5 * index
    return Events(
        np.sort(rng.integers(1000, 3000, count)),
        rng.integers(0, 9, count).astype(np.uint16),
        rng.integers(0, 6, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
        6,
        9,
    )


def recordings(order: Any = range(SIZE)) -> Recordings:
    return Recordings(
        np.arange(SIZE) % 4,
        np.arange(SIZE) % 5 == 0,
        np.arange(SIZE) % 3,
        lambda: ((index, events_of(index)) for index in order),
    )


def made(cache: Path | None = None, **settings: Any) -> FrameSet:
    return load_frame_set(cache, {"data": "some"}, FrameSettings(**settings), (6, 9), recordings)


class SomeEvents(EventDataModule):
    name = "some"
    num_classes = 4
    sensor = (6, 9)

    def identity(self) -> dict[str, Any]:
        return {"data": "some"}

    def recordings(self) -> Recordings:
        return recordings()

    def split(self, frame_set: FrameSet) -> Any:
        test = np.flatnonzero(frame_set.is_test)
        return np.flatnonzero(~frame_set.is_test), test[:2], test[2:]


@pytest.mark.parametrize("by", ["count", "time"])
@pytest.mark.parametrize("duration", [None, 700])
def test_frames_begin_with_the_first_event_and_last_so_long(by: str, duration: int | None) -> None:
    settings = FrameSettings(3, by, 2, duration)
    events = events_of(20)
    start = int(events.t[0])
    kept = np.flatnonzero(events.t < start + (duration or 10**6))
    frames = settings.frames(events)

    assert frames.shape == settings.shape(6, 9) == (3, 2, 3, 5)
    assert frames.sum() == len(kept)
    if by == "time":
        length = duration or int(events.t[-1]) + 1 - start
        expected = [((events.t[kept] - start) * 3 // length == k).sum() for k in range(3)]
        assert frames.sum((1, 2, 3)).tolist() == expected
    else:
        assert frames.sum((1, 2, 3)).tolist()[:2] == [len(kept) // 3] * 2


@pytest.mark.parametrize("settings", [{}, {"by": "time", "duration": 10}])
def test_a_recording_without_events_is_zeros(settings: dict[str, Any]) -> None:
    assert not FrameSettings(4, **settings).frames(events_of(0)).any()


@pytest.mark.parametrize("order", [range(SIZE), reversed(range(SIZE))])
def test_frames_and_what_belongs_to_them_stay_together(tmp_path: Path, order: Any) -> None:
    indices = list(order)
    for cache in (None, tmp_path):
        found = load_frame_set(
            cache, {"data": "some"}, FrameSettings(2), (6, 9), lambda: recordings(indices)
        )
        assert found.labels.tolist() == [k % 4 for k in range(SIZE)]
        assert found.is_test.tolist() == [k % 5 == 0 for k in range(SIZE)]
        assert found.groups.tolist() == [k % 3 for k in range(SIZE)]
        for index in range(SIZE):
            np.testing.assert_array_equal(found.frames[index], integrate(events_of(index), 2))


def test_a_recording_that_was_not_read_is_an_error(tmp_path: Path) -> None:
    for cache in (None, tmp_path):
        with pytest.raises(ValueError, match="2 of 23 recordings were not read"):
            load_frame_set(
                cache,
                {"data": "some"},
                FrameSettings(),
                (6, 9),
                lambda: recordings(range(2, SIZE)),
            )
    assert list(tmp_path.iterdir()) == []


def test_a_cache_of_other_settings_under_this_name_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    (next(tmp_path.iterdir()) / "settings.json").write_text("{}")

    with pytest.raises(ValueError, match=r"damaged \(settings\.json says other settings\)"):
        made(tmp_path)


def test_a_cache_that_cannot_be_written_is_noticed_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(ValueError, match=r"cache=.*file/cache: .*data\.cache=null"):
        load_frame_set(
            tmp_path / "file" / "cache",
            {"data": "some"},
            FrameSettings(),
            (6, 9),
            lambda: pytest.fail("work was done"),
        )


@pytest.mark.parametrize("cached", [False, True])
def test_batches_are_whole_numbers_batch_first(tmp_path: Path, cached: bool) -> None:
    frame_set = made(tmp_path if cached else None, time_steps=3)
    indices = np.array([4, 22, 9, 17, 11])
    dataset = FrameDataset(frame_set, indices, max_count=2)

    batches = list(batch_loader(dataset, 2, shuffle=False))

    frames = torch.cat([x for x, _ in batches])
    assert (frames.dtype, frames.shape) == (torch.float32, (5, 3, 2, 6, 9))
    assert torch.cat([y for _, y in batches]).tolist() == [0, 2, 1, 1, 3]
    expected = np.stack([integrate(events_of(int(index)), 3) for index in indices]).clip(max=2)
    np.testing.assert_array_equal(frames, expected)
    assert torch.equal(dataset[3][0], frames[3])


def test_workers_change_nothing(tmp_path: Path) -> None:
    dataset = FrameDataset(made(tmp_path), np.arange(SIZE))

    def epoch(num_workers: int) -> torch.Tensor:
        torch.manual_seed(1)
        return torch.cat([x for x, _ in batch_loader(dataset, 6, True, num_workers)])

    assert torch.equal(epoch(0), epoch(2))


def test_a_bound_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="max_count=0"):
        FrameDataset(made(), np.arange(3), max_count=0)


def test_fingerprints_follow_names_sizes_and_times(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("some")

    def found() -> str:
        return fingerprint(tmp_path.iterdir(), tmp_path)

    seen = [found()]
    assert found() == seen[0]
    (tmp_path / "b").write_text("other")
    seen.append(found())
    (tmp_path / "b").rename(tmp_path / "c")
    seen.append(found())
    (tmp_path / "c").unlink()
    seen.append(found())
    assert len(set(seen)) == 4


class Readout(lightning.LightningModule):
    """A linear readout of all frames, which notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 2 * 6 * 9, 4)
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch[0])
        return nn.functional.cross_entropy(self.linear(batch[0].flatten(1)), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", nn.functional.cross_entropy(self.linear(batch[0].flatten(1)), batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test", float(len(batch[0])), reduce_fx="sum")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trained(cache: Path, max_shift: int) -> tuple[Readout, float]:
    lightning.seed_everything(3)
    data = SomeEvents(time_steps=4, cache=cache, batch_size=5, max_shift=max_shift)
    module = Readout()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return module, trainer.test(module, datamodule=data, verbose=False)[0]["test"]


def test_lightning_trains_on_them_and_the_seed_decides(tmp_path: Path) -> None:
    shifted, tested = trained(tmp_path, max_shift=2)
    again, _ = trained(tmp_path, max_shift=2)
    plain, _ = trained(tmp_path, max_shift=0)

    assert tested == 3
    assert torch.cat(shifted.seen).shape == (18, 4, 2, 6, 9)
    assert torch.equal(torch.cat(shifted.seen), torch.cat(again.seen))
    assert not torch.equal(torch.cat(shifted.seen), torch.cat(plain.seen))
    # A shift only loses what leaves the frame.
    kept, whole = (torch.cat(module.seen).sum((1, 2, 3, 4)) for module in (shifted, plain))
    assert (kept <= whole).all()
    assert kept.sum() > 0.3 * whole.sum()
