"""Broken images: named before training, or which stand in for them and how many are allowed."""

import pytest
import torch

from downstream import broken
from downstream.trial import Place

ALONE = Place(0, 1, torch.device("cpu"))


def decode(number):
    if number >= 100:
        raise ValueError(f"image {number}")


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([100, 2, 3], [2, 2, 3]),
        ([1, 101, 102, 4], [1, 4, 4, 4]),
        ([1, 2, 103], [1, 2, 1]),
        ([100, 2, 103], [2, 2, 2]),
    ],
)
def test_the_next_whole_image_stands_in_round_the_end(items, expected):
    found, reasons = broken.preflight(items, [5, 6], decode, 2, ALONE, "task")
    assert found == expected
    assert reasons == [f"image {i}" for i in items if i >= 100]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 101], [2, 3], "image 101"),
        ([1, 2], [2, 103], "image 103"),
        ([100, 101], [102], r"image 100 \(and 2 more: bench data check lists them\)"),
    ],
)
def test_without_permission_a_broken_image_of_either_split_is_named(train, test, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        broken.preflight(train, test, decode, 0, ALONE, "task")


def test_a_test_image_is_never_left_out():
    with pytest.raises(ValueError, match=r"^image 102$"):
        broken.preflight([100, 1], [2, 102], decode, 2, ALONE, "task")


def test_of_larger_splits_some_are_decoded_from_the_first_to_the_last_and_all_where_broken_ones_may_be(monkeypatch):
    monkeypatch.setattr(broken, "DECODED", 4)
    seen = []
    broken.preflight(range(10), range(10, 13), seen.append, 0, ALONE, "task")
    assert sorted(seen) == [0, 3, 6, 9, 10, 11, 12]
    seen.clear()
    broken.preflight(range(10), range(10, 19), seen.append, 1, ALONE, "task")
    assert sorted(seen) == [*range(10), 10, 13, 16]


@pytest.mark.parametrize(("items", "allowed", "found"), [([100, 101, 1], 1, "2 of 3"), ([100, 101], 5, "2 of 2")])
def test_too_many_and_all_are_refused(items, allowed, found):
    with pytest.raises(ValueError, match=f"at most {allowed} broken images .*found {found}, such as: image 100"):
        broken.preflight(items, [], decode, allowed, ALONE, "task")


def test_other_errors_are_no_broken_image():
    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        broken.preflight([1], [], fail, 1, ALONE, "task")
