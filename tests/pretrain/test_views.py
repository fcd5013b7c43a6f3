"""Every operation of pretrain.views against torchvision and PIL with the same parameters."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as tv

from pretrain import views
from pretrain.methods import moco, pixpro, supervised


def picture(height: int = 60, width: int = 90) -> np.ndarray:
    """Smooth coloured structure with some noise, like a photograph."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 90 * np.sin(x / 9 + phase) * np.cos(y / 13 - phase) for phase in (0, 1, 2)]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    return np.clip(np.stack(planes, axis=-1) + noise, 0, 255).astype(np.uint8)


def difference(ours: np.ndarray, theirs: Image.Image) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(theirs).astype(int))


@pytest.mark.parametrize("factor", [0.2, 0.6, 0.95, 1.0, 1.4, 1.8])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_brightness_contrast_and_saturation_are_torchvisions(name, factor):
    image = picture()
    theirs = getattr(tv, f"adjust_{name}")(Image.fromarray(image), factor)
    apart = difference(views.jittered(image, [(name, factor)]), theirs)
    assert apart.max() <= 1
    assert apart.mean() < 0.25  # the matrix has 10 bits, and PIL rounds the grey on the way to a saturation


@pytest.mark.parametrize("order", list(itertools.permutations(("brightness", "contrast", "saturation"))), ids=" ".join)
@pytest.mark.parametrize("factors", [(0.6, 0.7, 0.8), (1.3, 0.7, 1.4), (0.7, 1.4, 1.2), (1.4, 1.4, 1.4)], ids=str)
def test_operations_that_wait_in_one_matrix_give_what_one_after_the_other_gives(order, factors):
    image = picture()
    theirs = Image.fromarray(image)
    for name, factor in zip(order, factors, strict=True):
        theirs = getattr(tv, f"adjust_{name}")(theirs, factor)
    ours = views.jittered(image, list(zip(order, factors, strict=True)))
    assert difference(ours, theirs).max() <= 4
    assert abs(ours.mean() - np.asarray(theirs).mean()) < 0.25


@pytest.mark.parametrize("shift", [-0.4, -0.1, 0.0, 0.03, 0.25, 0.4])
def test_hue_is_torchvisions_within_the_rounding_of_8_bit_hsv(shift):
    apart = difference(views.jittered(picture(), [("hue", shift)]), tv.adjust_hue(Image.fromarray(picture()), shift))
    assert apart.mean() < 2.5
    assert np.percentile(apart, 99) <= 8


def test_gray_is_pils_luma():
    assert difference(views.gray(picture()), tv.to_grayscale(Image.fromarray(picture()), 3)).max() <= 1


def test_solarize_is_pils():
    assert difference(views.solarized(picture()), ImageOps.solarize(Image.fromarray(picture()))).max() == 0


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.3, 0.49, 0.5, 0.7, 0.9, 1.09, 1.1, 1.4, 1.7, 2.0, 3.5])
def test_blur_is_pils_within_the_width_of_a_box(sigma):
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for image in (picture(), noise):  # noise tells a kernel's strength at single pixels
        apart = difference(views.blurred(image, sigma), Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
        assert apart.mean() < 1.1
        assert np.percentile(apart, 99) <= 5


@pytest.mark.parametrize(("height", "width"), [(20, 30), (64, 64), (60, 90), (90, 40), (300, 200)])
def test_resize_is_pils_bilinear_up_and_down(height, width):
    image = picture(height, width)
    assert (
        difference(
            views.resized(image, 64, 64), Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
        ).max()
        <= 1
    )


@pytest.mark.parametrize(("height", "width"), [(20, 30), (64, 64), (60, 90), (300, 200)])
def test_bicubic_is_pils_up_and_down(height, width):
    image = picture(height, width)
    theirs = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    assert difference(views.resized(image, 64, 64, "bicubic"), theirs).max() <= 1


def test_resize_takes_a_crop_of_a_larger_image():
    image = picture(200, 200)
    part = image[10:150, 20:170]
    assert (
        difference(views.resized(part, 64, 64), Image.fromarray(part).resize((64, 64), Image.Resampling.BILINEAR)).max()
        <= 1
    )


def test_crops_are_distributed_like_torchvisions():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.empty(3, 80, 120)
    ours = np.array([views.crop(80, 120, (0.2, 1.0), rng) for _ in range(3000)])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=1.5)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=1.2)


def test_a_crop_has_the_area_that_was_drawn_its_sides_are_rounded_and_not_cut():
    rng = np.random.default_rng(0)
    crops = [views.crop(100, 100, (0.25, 0.25), rng) for _ in range(500)]
    assert np.mean([height * width for _, _, height, width in crops]) == pytest.approx(2500, abs=8)


def test_crop_of_an_extreme_image_falls_back_to_the_centre():
    rng = np.random.default_rng(0)
    assert views.crop(10, 1000, (0.9, 1.0), rng) == (0, 493, 10, 13)
    assert views.crop(1000, 10, (0.9, 1.0), rng) == (493, 0, 13, 10)
    assert views.crop(1, 1, (0.2, 1.0), rng) == (0, 0, 1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_the_box_says_where_the_view_lies_in_a_coordinate_gradient(seed):
    # the red channel is the column and the green channel the row, as fractions of the last one
    height, width = 120, 200
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.round(np.linspace(0, 255, width))
    image[..., 1] = np.round(np.linspace(0, 255, height))[:, None]
    plain = {**pixpro.recipe(), "size": 56, "jitter_p": 0, "gray_p": 0, "blur_p": (0, 0), "solarize_p": (0, 0)}
    out, (x0, y0, x1, y1) = views.view(image, plain, 0, np.random.default_rng(seed))
    # a PixPro cell's centre is start + (index + 0.5) * bin
    centre_x = x0 + (np.arange(56) + 0.5) * (x1 - x0) / 56
    centre_y = y0 + (np.arange(56) + 0.5) * (y1 - y0) / 56
    np.testing.assert_allclose(out[28, :, 0] / 255, centre_x, atol=0.01)
    np.testing.assert_allclose(out[:, 28, 1] / 255, centre_y, atol=0.01)


def test_a_mirrored_view_has_its_corners_exchanged_and_only_along_x():
    plain = {**pixpro.recipe(), "size": 32, "flip_p": 1.0}
    for seed in range(20):
        _, (x0, y0, x1, y1) = views.view(picture(), plain, 1, np.random.default_rng(seed))
        assert x0 > x1
        assert y0 < y1


def test_a_whole_image_has_the_box_0_0_1_1():
    whole = {**supervised.recipe(), "crop_area": (1.0, 1.0), "flip_p": 0.0, "size": 32}
    boxes = [views.view(picture(50, 50), whole, 0, np.random.default_rng(seed))[1] for seed in range(200)]
    assert (0.0, 0.0, 1.0, 1.0) in boxes
    assert all(0 <= value <= 1 for box in boxes for value in box)


def test_each_view_has_its_own_blur_and_solarisation():
    # PixPro: the first view is always blurred, the second solarised with probability 0.2
    recipe = {**pixpro.recipe(), "size": 32, "jitter_p": 0, "gray_p": 0, "flip_p": 0, "crop_area": (1.0, 1.0)}
    bright = np.full((32, 32, 3), 250, np.uint8)
    first = [views.view(bright, recipe, 0, np.random.default_rng(seed))[0].min() for seed in range(300)]
    second = [views.view(bright, recipe, 1, np.random.default_rng(seed))[0].min() for seed in range(300)]
    assert min(first) == 250
    assert math.isclose(np.mean(np.array(second) < 128), 0.2, abs_tol=0.07)


@pytest.mark.parametrize(("kernel", "sigma"), [(7, 0.5), (23, 2.0), (23, 0.1)])
def test_a_kernel_of_given_size_is_torchvisions_blur(kernel, sigma):
    theirs = tv.gaussian_blur(torch.from_numpy(picture()).permute(2, 0, 1), [kernel, kernel], [sigma, sigma])
    apart = np.abs(views.blurred(picture(), sigma, kernel).astype(int) - theirs.permute(1, 2, 0).numpy().astype(int))
    assert apart.max() <= 1


def test_a_centre_is_torchvisions_resize_and_crop():
    for image in (picture(60, 90), picture(500, 333), picture(64, 64)):
        theirs = tv.center_crop(tv.resize(Image.fromarray(image), 73), [64, 64])
        assert difference(views.centre(image, 64), theirs).max() <= 1


def test_every_view_has_its_own_size_area_and_colours():
    recipe = {
        **moco.recipe(), "views": 2, "size": (32, 16), "crop_area": ((0.8, 1.0), (0.05, 0.14)), "gray_p": (1.0, 0.0),
        "jitter_p": 0.0, "blur_p": (0.0, 0.0), "flip_p": (0.0, 1.0),
    }  # fmt: skip
    for seed in range(20):
        rng = np.random.default_rng(seed)
        large, box = views.view(picture(), recipe, 0, rng)
        small, other = views.view(picture(), recipe, 1, rng)
        assert (large.shape, small.shape) == ((32, 32, 3), (16, 16, 3))
        assert (large[..., 0] == large[..., 1]).all()
        assert not (small[..., 0] == small[..., 1]).all()
        assert box[0] < box[2] and other[0] > other[2]
        area = [abs(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
        assert area[0] > 0.7 and area[1] < 0.16


def test_a_jigsaw_is_nine_patches_from_their_own_cells():
    # every pixel says where it stands
    image = np.zeros((90, 90, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:90, :90]
    recipe = {
        **moco.recipe(), "jigsaw": 1, "jigsaw_size": 90, "jigsaw_area": (1.0, 1.0), "jigsaw_patch": 24, "jigsaw_colours": False,
        "flip_p": 0.0,
    }  # fmt: skip
    places = []
    for seed in range(200):
        out, box = views.view(image, recipe, 1, np.random.default_rng(seed))
        assert out.shape == (9, 24, 24, 3)
        if box != (0.0, 0.0, 1.0, 1.0):
            continue  # the aspect did not fit: ten failures would be needed for the centre
        corners = out[:, 0, 0, :2].astype(int) - 30 * np.array(
            [(row, column) for row in range(3) for column in range(3)]
        )
        assert (out[:, -1, -1, :2].astype(int) - out[:, 0, 0, :2] == 23).all()
        places.append(corners)
    places = np.array(places)
    assert places.min() == 0 and places.max() == 6  # a patch of 24 in a cell of 30
    assert len(np.unique(places)) == 7


def test_a_jigsaw_from_a_part_of_the_side_is_a_square_of_it_coloured_and_mirrored_as_a_whole():
    image = np.zeros((90, 120, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:90, :120]
    image[..., 2] = 255
    recipe = {
        **moco.recipe(), "jigsaw": 0, "jigsaw_size": 60, "jigsaw_side": 2 / 3, "jigsaw_patch": 15, "gray_p": 0.5, "jitter_p": 0.0,
        "blur_p": 0.0, "flip_p": 0.5,
    }  # fmt: skip
    corners, grey, mirrored = [], [], []
    for seed in range(400):
        out, (x0, y0, x1, y1) = views.view(image, recipe, 0, np.random.default_rng(seed))
        assert out.shape == (9, 15, 15, 3)
        x, y = (np.array(pair) * side for pair, side in (((x0, x1), 119), ((y0, y1), 89)))
        assert abs(x[1] - x[0]) == pytest.approx(59) and y[1] - y[0] == pytest.approx(59)
        corners.append((round(min(x)), round(min(y))))
        mirrored.append(x0 > x1)
        alike = [bool((patch[..., 0] == patch[..., 2]).all()) for patch in out]
        assert len(set(alike)) == 1
        grey.append(alike[0])
        if not alike[0] and x0 < x1:  # not resized: a patch is a piece of the image
            rows, columns = out[:, 0, 0, 0].astype(int) - corners[-1][1], out[:, 0, 0, 1].astype(int) - corners[-1][0]
            cells = np.divmod(np.arange(9), 3)
            assert all(0 <= a - 20 * cell <= 5 for a, cell in zip(rows, cells[0], strict=True))
            assert all(0 <= a - 20 * cell <= 5 for a, cell in zip(columns, cells[1], strict=True))
    assert {x for x, _ in corners} == set(range(61)) and {y for _, y in corners} == set(range(31))
    assert 150 < sum(grey) < 250 and 150 < sum(mirrored) < 250


def test_a_jigsaws_colours_are_drawn_for_every_patch_or_not_at_all():
    grey = np.full((90, 90, 3), 100, np.uint8)
    recipe = {
        **moco.recipe(), "jigsaw": 0, "jigsaw_size": 90, "jigsaw_area": (0.6, 1.0), "jigsaw_patch": 24, "gray_p": 0.0,
        "jitter": (0.4, 0.0, 0.0, 0.0), "jitter_p": 1.0, "blur_p": 0.0,
    }  # fmt: skip
    rng = np.random.default_rng(0)
    coloured = views.view(grey, {**recipe, "jigsaw_colours": True}, 0, rng)[0]
    plain = views.view(grey, {**recipe, "jigsaw_colours": False}, 0, rng)[0]
    assert len({int(patch[0, 0, 0]) for patch in coloured}) > 5
    assert (plain == 100).all()


@pytest.mark.parametrize(("variant", "order"), [("v1", ["gray", "jittered"]), ("v2", ["jittered", "gray", "blurred"])])
def test_moco_v1_turns_grey_before_the_jitter_and_v2_after(variant, order, monkeypatch):
    done = []
    for name in ("gray", "jittered", "blurred"):
        monkeypatch.setattr(views, name, lambda image, *rest, name=name: (done.append(name), image)[1])
    certain = {"gray_p": 1.0, "jitter_p": 1.0, "size": 32}
    blur = (0.0, 0.0) if variant == "v1" else (1.0, 1.0)
    views.view(picture(), {**moco.recipe(variant), **certain, "blur_p": blur}, 0, np.random.default_rng(3))
    assert done == order
