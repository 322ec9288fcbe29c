"""Rows by step, each sent once, whatever is logged when and again."""

from qspinn.app.tracking.history import STEP, History


def collected(start=0):
    sent = []
    return sent, History(lambda row, place: sent.append((place, row)), start)


def test_a_row_is_sent_when_a_later_step_says_that_it_is_complete():
    sent, history = collected()
    history.add({"loss": 1.0}, 3)
    history.add({"picture": "p"}, 4)  # of the same epoch, a step later
    history.add({"val": 0.5}, 3)
    assert sent == []
    history.add({"loss": 0.5}, 7)
    assert sent == [(3, {"loss": 1.0, "val": 0.5, STEP: 3}), (4, {"picture": "p", STEP: 4})]
    history.add({"last": 1.0})
    assert history.waiting() == {"loss": 0.5, "last": 1.0}
    history.flush()
    assert sent[2:] == [(7, {"loss": 0.5, "last": 1.0, STEP: 7})]
    assert history.waiting() == {}


def test_what_lightning_repeats_after_a_flush_is_not_sent_again():
    sent, history = collected()
    values = {"loss": float("nan"), "epoch": 0}
    history.add(values, 3)
    history.flush(3)
    history.add(dict(values), 3)
    history.flush()
    assert len(sent) == 1
    history.add({**values, "late": 2.0}, 3)  # nothing is lost
    history.add({"loss": 1.0}, 9)
    history.flush()
    assert sent[1:] == [(4, {"late": 2.0, STEP: 3}), (9, {"loss": 1.0, STEP: 9})]


def test_a_flush_up_to_a_step_keeps_later_rows():
    sent, history = collected()
    history.add({"a": 1}, 3)
    history.add({"picture": 1}, 4)
    history.flush(3)
    assert [place for place, _ in sent] == [3]
    history.add({"b": 1}, 4)
    history.flush()
    assert sent[1:] == [(4, {"picture": 1, "b": 1, STEP: 4})]


def test_rows_of_an_earlier_process_are_handed_over_as_far_as_they_are_missing():
    rows = [{"step": 3.0, "loss": 3.0}, {"step": 7.0, "loss": 2.0}, {"step": 11.0, "loss": 1.0}]
    sent, history = collected(start=4)
    history.hand_over(rows)
    assert sent == [(7, {"loss": 2.0, STEP: 7}), (11, {"loss": 1.0, STEP: 11})]
    history.add({"loss": 0.5}, 15)
    history.flush()
    assert [place for place, _ in sent] == [7, 11, 15]
    # The receiver has more than the checkpoint: what is computed again is not sent again.
    sent, history = collected(start=12)
    history.hand_over(rows[:2])
    history.add({"loss": 1.0}, 11)
    history.add({"loss": 0.5}, 15)
    history.flush()
    assert [place for place, _ in sent] == [15]
