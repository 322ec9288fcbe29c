"""Label files and lists of trials, right and wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.data.gesture_labels import (
    Gesture,
    GestureLabelError,
    labels_name,
    parse_gesture_labels,
    parse_trials,
    subject_of,
)

HEADER = "class,startTime_usec,endTime_usec\n"


def test_classes_count_from_0_here() -> None:
    text = HEADER + "1,80048239,85092709\r\n11,180675853,187389051\n\n"

    assert parse_gesture_labels(text) == [
        Gesture(0, 80048239, 85092709),
        Gesture(10, 180675853, 187389051),
    ]


def test_a_file_of_one_line() -> None:
    assert parse_gesture_labels(HEADER + "10,5,6") == [Gesture(9, 5, 6)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "some: line 1: expected class,startTime_usec,endTime_usec, found an empty file"),
        ("1,2,3\n", "line 1: expected class,.*found '1,2,3'"),
        (HEADER, "at least one gesture"),
        (HEADER + "1,2\n", "line 2: expected three whole numbers, .*found '1,2'"),
        (HEADER + "1,2,3\n1,a,3\n", "line 3: expected three whole numbers"),
        (HEADER + "12,2,3\n", "line 2: expected a class of 1 to 11, found 12"),
        (HEADER + "0,2,3\n", "expected a class of 1 to 11, found 0"),
        (HEADER + "1,3,3\n", "expected a start of 0 or more and an end after it, .*found '1,3,3'"),
        (HEADER + "1,-3,3\n", "found '1,-3,3'"),
        (HEADER + "1,3," + "9" * 30, "at most 4611686018427387903, found"),
    ],
)
def test_wrong_labels(text: str, message: str) -> None:
    with pytest.raises(GestureLabelError, match=message):
        parse_gesture_labels(text, "some")


@given(st.text(alphabet="0123456789,-\n x", max_size=40))
def test_arbitrary_lines_never_raise_another_error(text: str) -> None:
    try:
        gestures = parse_gesture_labels(HEADER + text)
    except GestureLabelError:
        return
    assert all(0 <= one.label < 11 and 0 <= one.start < one.stop for one in gestures)


def test_lists_keep_their_order() -> None:
    text = "user02_lab.aedat\nuser01_fluorescent_led.aedat  \r\n\n"

    assert parse_trials(text) == ["user02_lab", "user01_fluorescent_led"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user01_lab.txt\n", "some: line 1: expected a name such as user01_fluorescent.aedat"),
        ("user01_lab.aedat\n../user01_lab.aedat\n", "line 2: expected a name"),
        ("user1_a.aedat\nuser1_a.aedat\n", "line 2: user1_a.aedat is listed a second time"),
    ],
)
def test_wrong_lists(text: str, message: str) -> None:
    with pytest.raises(GestureLabelError, match=message):
        parse_trials(text, "some")


def test_names() -> None:
    assert subject_of("user07_fluorescent") == 7
    assert labels_name("user07_lab") == "user07_lab_labels.csv"
    with pytest.raises(GestureLabelError, match="subject7_lab: expected a name"):
        subject_of("subject7_lab")
