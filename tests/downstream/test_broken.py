"""Broken training images: which stand in for them, how many are allowed."""

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
    found, reasons = broken.spared(items, decode, 2, ALONE, "task")
    assert found == expected
    assert reasons == [f"image {i}" for i in items if i >= 100]


def test_without_permission_nothing_is_decoded():
    def never(_):
        raise AssertionError

    assert broken.spared([1, 2], never, 0, ALONE, "task") == ([1, 2], [])


@pytest.mark.parametrize(("items", "allowed", "found"), [([100, 101, 1], 1, "2 of 3"), ([100, 101], 5, "2 of 2")])
def test_too_many_and_all_are_refused(items, allowed, found):
    with pytest.raises(ValueError, match=f"at most {allowed} broken images .*found {found}, such as: image 100"):
        broken.spared(items, decode, allowed, ALONE, "task")


def test_other_errors_are_no_broken_image():
    def fail(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        broken.spared([1], fail, 1, ALONE, "task")
