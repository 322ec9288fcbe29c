"""Splits against loops."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from qspinn.data.splits import fold_of, natural, rank_in_class, stratified_tail

labels_lists = st.lists(st.integers(0, 4), max_size=40)


@given(labels_lists)
def test_rank_in_class(labels: list[int]) -> None:
    expected = [labels[:index].count(label) for index, label in enumerate(labels)]

    assert rank_in_class(torch.tensor(labels, dtype=torch.int64)).tolist() == expected


@given(labels_lists, st.integers(2, 7))
def test_folds_are_stratified(labels: list[int], folds: int) -> None:
    array = np.array(labels, np.int64)

    found = fold_of(array, folds)

    for label in set(labels):
        sizes = np.bincount(found[array == label], minlength=folds)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1


@given(labels_lists, st.sampled_from([0, 0.1, 0.25, 0.5, 0.9]), st.randoms())
def test_the_tail_of_each_class(labels: list[int], fraction: float, random: object) -> None:
    indices = [index for index in range(len(labels)) if index % 3]
    random.shuffle(indices)  # type: ignore[attr-defined]
    tail: set[int] = set()
    for label in set(labels):
        of_class = [index for index in indices if labels[index] == label]
        tail.update(of_class[len(of_class) - round(fraction * len(of_class)) :])

    kept, split = stratified_tail(np.array(labels, np.int64), np.array(indices, np.int64), fraction)

    assert split.tolist() == [index for index in indices if index in tail]
    assert kept.tolist() == [index for index in indices if index not in tail]


def test_numbers_in_names_count_as_numbers() -> None:
    names = ["10", "9", "a10b2", "a9b10", "a9b9", "", "a"]

    assert sorted(names, key=natural) == ["", "9", "10", "a", "a9b9", "a9b10", "a10b2"]
