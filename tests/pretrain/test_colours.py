"""The colours of a whole batch on a device are those of one view after another, for every method whose views allow it."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch.overrides import TorchFunctionMode

from bench import catalog
from pretrain import checkpoint, colours, data, dist, loop, recipes, views
from pretrain.methods import byol, clsa, infomin, moco, pirl, pixpro, simclr, swav

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures with smooth colours, edges and noise."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    for number in range(40):
        planes = [127 + 110 * np.sin(x / rng.uniform(5, 30) + y / rng.uniform(5, 30) + phase) for phase in range(3)]
        picture = np.stack(planes, -1) + rng.normal(0, 6, (90, 120, 3))
        picture[20:50, 30:70] = rng.uniform(0, 255, 3)
        (root / f"{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(root / f"{number % 2}" / f"{number}.png")
    return data.Folder(root)


def both(folder, recipe):
    """A batch with the colours that the loader gives it, and the same batch with those of the device."""
    recipe = {**recipe, "batch_size": 40, **({"images": 40} if "images" in recipe else {})}
    now, later = (data.Steps(folder, recipe, 0, later=later).batch(0) for later in (False, True))
    for one, other in zip(now[1:], later[1:], strict=True):
        assert torch.equal(one, other)
    return now[0], later[0]


@pytest.mark.parametrize(
    ("method", "variant", "size"),
    [(moco, "v1", 64), (moco, "v2", 224), (simclr, None, 96), (byol, None, 96), (swav, None, None), (pixpro, None, 96)],
)
def test_a_device_gives_the_colours_that_the_loader_gives(folder, method, variant, size):
    recipe = method.recipe(variant)
    now, later = both(folder, recipe | ({"size": size} if size else {}))
    assert len(now) == recipe["views"]
    for one, other in zip(now, later, strict=True):
        found = other.on(CPU)
        assert found.shape == (40, 3, *one.shape[1:3]) and found.dtype == torch.float32
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, found.round()) and found.min() >= 0 and found.max() <= 255
        apart = (found.movedim(1, -1) - one.float()).abs()
        untouched = (other.plan[..., 0] == 0).all(1)
        assert not apart[untouched].any()
        signed = (found.movedim(1, -1) - one.float()).mean()
        assert apart.mean() < 0.8 and apart.flatten(1).mean(1).max() < 1.6, (apart.mean(), apart.flatten(1).mean(1))
        assert signed.abs() < 0.2, signed


@pytest.mark.parametrize("operation", [name for name in views.OPERATIONS if name])
@pytest.mark.parametrize("kernel", [None, 23])
def test_each_operation_is_the_loaders(folder, operation, kernel):
    image = np.stack([views.resized(folder.image(n), 64, 64) for n in range(8)])
    amounts = {"hue": np.linspace(-0.5, 0.5, 8), "blur": np.linspace(0.1, 2, 8)}.get(
        operation, np.linspace(0.2, 1.8, 8)
    )
    plan = torch.zeros(8, len(views.SLOTS), 2)
    plan[:, 1, 0], plan[:, 1, 1] = views.OPERATIONS.index(operation), torch.from_numpy(amounts)
    said = {"blur_sigma": (0.1, 2.0)} | ({"blur_kernel": kernel} if kernel else {})
    found = colours.Uncoloured(torch.from_numpy(image), plan, said).on(CPU).movedim(1, -1)
    for one, amount, ours in zip(image, amounts, found, strict=True):
        if operation in views.COLOURS:
            theirs = views.jittered(one, [(operation, amount)])
        elif operation == "blur":
            theirs = views.blurred(one, amount, kernel)
        else:
            theirs = {"gray": views.gray, "solarize": views.solarized}[operation](one)
        apart = (ours - torch.from_numpy(theirs).float()).abs()
        assert apart.mean() < 1.3 and apart.quantile(0.99) <= 6, (operation, amount, apart.mean(), apart.max())


@pytest.mark.parametrize("largest", [0.3, 0.571, 2.0, 6.0])
def test_a_blur_without_a_kernel_is_pils(folder, largest):
    image = np.stack([views.resized(folder.image(n), 64, 64) for n in range(8)])
    sigma = np.linspace(0, largest, 8)
    x = torch.from_numpy(image).movedim(-1, 1).float()
    found = colours.blurred(x, torch.from_numpy(sigma).float(), {"blur_sigma": (0, largest)}).movedim(1, -1)
    for one, amount, ours in zip(image, sigma, found.numpy(), strict=True):
        theirs = np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(float(amount))), float)
        apart = np.abs(ours - theirs)[8:-8, 8:-8]  # PIL repeats the border for each of its boxes, and rounds after each
        assert apart.mean() < 0.7 and apart.max() <= 4, (amount, apart.mean(), apart.max())


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.4])
def test_a_blur_without_a_kernel_is_pils_at_the_border_too(sigma):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    ours = colours.blurred(x, torch.tensor([sigma]), {"blur_sigma": (0.1, 2.0)})[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("kernel", [None, 23])
@pytest.mark.parametrize("largest", [0, 2.0])
def test_a_blur_of_no_radius_changes_nothing(folder, kernel, largest):
    image = views.resized(folder.image(0), 64, 64)
    said = {"blur_sigma": (0, largest), "blur_kernel": kernel}
    x = torch.from_numpy(image).movedim(-1, 0)[None].float()
    assert torch.equal(colours.blurred(x, torch.zeros(1), said), x)
    assert np.array_equal(views.blurred(image, 0, kernel), image)


class Numbers(TorchFunctionMode):
    """Takes down what makes a tensor of numbers for another device: a GPU's queue is waited for until it is empty."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        makers = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor, torch.Tensor.to)
        if function in makers and found.is_meta and not (kwargs or {}).get("non_blocking"):
            self.made.append(function)
        return found


def test_a_device_is_not_waited_for(folder):
    _, later = both(folder, moco.recipe() | {"size": 32})
    device, numbers = torch.device("meta"), Numbers()
    with numbers:
        assert later[0].on(device).is_meta
        assert dist.permutation(4, device).is_meta
        checkpoint.Stop(dist.Process(0, 2, device)).asked()
    assert numbers.made == []


def test_views_with_operations_of_pil_and_jigsaws_keep_their_colours_in_the_loader():
    assert [v for v in range(2) if views.deferrable(moco.recipe(), v)] == [0, 1]
    recipe = infomin.recipe()
    assert not any(views.deferrable(recipe, v) for v in range(recipe["views"]))
    recipe = clsa.recipe()
    assert {views.deferrable(recipe, v) for v in range(recipe["views"])} == {True, False}
    recipe = pirl.recipe()
    assert not views.deferrable(recipe, recipe["jigsaw"])


def test_part_of_a_batch_is_coloured_as_the_whole_and_goes_through_a_loaders_queue(folder):
    _, (whole, _) = both(folder, moco.recipe() | {"size": 48})
    parts = torch.cat([whole[start : start + 10].on(CPU) for start in range(0, 40, 10)])
    assert torch.equal(parts, whole.on(CPU))
    again = pickle.loads(pickle.dumps(whole))
    assert all(torch.equal(getattr(again, name), getattr(whole, name)) for name in ("pixels", "plan"))
    assert set(again.said) == set(whole.said) and dataclasses.is_dataclass(again)


@pytest.mark.parametrize("method", ["moco", "swav", "clsa"])
def test_a_training_takes_either_and_its_losses_agree(folder, method):
    """Two steps: the loss of views whose colours differ by rounding."""
    losses = {}
    for later in (False, True):
        recipe = recipes.resolved(catalog.load("method", method), folder, "mini", batch_size=8)
        recipe["precision"] = "fp32"
        torch.manual_seed(0)
        model = catalog.load("method", method).METHOD("resnet18", recipe).to(memory_format=torch.channels_last)
        training = loop.Training(model, folder, {"recipe": recipe, "seed": 0}, dist.process())
        training.source = data.Steps(folder, recipe, 0, later=later)
        steps = data.batches(training.source, 0, 2, 1, False)
        losses[later] = [float(training.update(*batch)["loss"]) for batch in steps]
    assert losses[True] != losses[False]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
