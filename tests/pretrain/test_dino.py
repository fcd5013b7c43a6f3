import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from pretrain import dist, loop, momentum, optim
from pretrain.data import Folder
from pretrain.methods import dino
from pretrain.recipes import resolved

SMALL = {"hidden": 16, "dim": 8, "prototypes": 12}


def model(**changes) -> dino.DINO:
    torch.manual_seed(0)
    return dino.DINO("resnet18", {**dino.recipe(), **SMALL, **changes})


def crops(n: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator) for side in (48, 48, 32, 32)]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def formula(student, teacher, center, temperature=0.1, teacher_temperature=0.04):
    """arXiv 2104.14294, equation 3 with the centre of equation 4; student [V, N, K], teacher [2, N, K]."""
    p, q = softmax(student / temperature), softmax((teacher - center) / teacher_temperature)
    pairs = [(crop, v) for crop in range(len(q)) for v in range(len(p)) if v != crop]
    return np.mean([-np.mean(np.sum(q[crop] * np.log(p[v]), axis=1)) for crop, v in pairs])


def test_the_loss_is_the_papers_formula_and_trains_the_student_alone():
    net = model()
    net.center.copy_(torch.linspace(-0.1, 0.1, 12))
    center, views = net.center.double().numpy().copy(), crops()
    with torch.no_grad():
        student, teacher = net.scores(views).double().numpy(), net.scores(views[:2], "teacher_").double().numpy()
    loss = net(views)
    loss.backward()
    assert (student.shape, teacher.shape) == ((4, 4, 12), (2, 4, 12))
    assert loss.item() == pytest.approx(formula(student, teacher, center), abs=1e-4)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith("teacher_"), name
    entropy = -np.mean(np.sum((q := softmax((teacher - center) / 0.04)) * np.log(q), axis=2))
    assert float(net.statistics["entropy"]) == pytest.approx(entropy, abs=1e-4)


def test_the_centre_is_a_running_mean_of_the_teachers_outputs_that_the_next_batch_sees():
    net = model()
    with torch.no_grad():
        outputs = net.scores(crops()[:2], "teacher_")
    net(crops())
    torch.testing.assert_close(net.center, 0.1 * outputs.mean(dim=(0, 1)))
    net(crops())
    torch.testing.assert_close(net.center, 0.19 * outputs.mean(dim=(0, 1)))


def test_an_even_teacher_and_an_even_student_give_ln_of_65536():
    assert math.log(65536) == pytest.approx(11.09, abs=5e-3)
    net = model()
    for part in (net.head, net.teacher_head):
        nn.init.zeros_(part[-1].weight)
    assert net(crops()).item() == pytest.approx(math.log(12), abs=1e-5)
    assert float(net.statistics["entropy"]) == pytest.approx(math.log(12), abs=1e-5)


def test_the_outputs_are_those_of_a_weight_normed_layer_of_length_1():
    net = model()
    with torch.no_grad():
        net.prototypes.weight.mul_(3)
        z = net.head(net.backbone(crops()[0]))
        layer = nn.Linear(8, 12, bias=False)
        layer.weight.copy_(net.prototypes.weight)
    layer = nn.utils.parametrizations.weight_norm(layer)
    layer.parametrizations.weight.original0.data.fill_(1)
    scores = net.scores(crops()[:1])[0]
    torch.testing.assert_close(scores, layer(F.normalize(z, dim=1)))
    scores.square().sum().backward()
    layer(F.normalize(z, dim=1)).square().sum().backward()
    torch.testing.assert_close(net.prototypes.weight.grad, layer.parametrizations.weight.original1.grad)


def test_the_heads_are_dinoheads():
    net = dino.DINO("resnet50", {**dino.recipe(), "prototypes": 10})
    assert [type(part) for part in net.head] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert [tuple(part.weight.shape) for part in net.head[::2]] == [(2048, 2048), (2048, 2048), (256, 2048)]
    assert all(part.weight.std().item() == pytest.approx(0.02, rel=0.01) for part in net.head[::2])
    assert not any(part.bias.any() for part in net.head[::2])
    assert net.prototypes.weight.shape == (10, 256) and net.prototypes.bias is None


def test_a_gradient_is_clipped_by_itself_and_the_prototypes_are_frozen_for_an_epoch():
    for step, frozen in ((0, True), (4, True), (5, False)):
        net = model(clip=1.0)
        for i, parameter in enumerate(p for p in net.parameters() if p.requires_grad):
            parameter.grad = torch.full_like(parameter, (0.5 if i % 2 else 2) / math.sqrt(parameter.numel()))
        before = {name: p.grad.norm().item() for name, p in net.named_parameters() if p.requires_grad}
        net.before_update(step, 5)
        assert (net.prototypes.weight.grad is None) == frozen
        for name, parameter in net.named_parameters():
            if parameter.grad is not None:
                assert parameter.grad.norm().item() == pytest.approx(min(before[name], 1), rel=1e-3), name


def test_the_teacher_follows_after_the_step_with_a_momentum_that_rises_to_1():
    net = model(ema=0.9)
    before = net.teacher_prototypes.weight.clone()
    with torch.no_grad():
        net.prototypes.weight.add_(1)
    net.after_update(1.0)
    assert torch.equal(net.teacher_prototypes.weight, before)
    net.after_update(0.5)
    torch.testing.assert_close(net.teacher_prototypes.weight, before + 0.05)
    assert net.statistics["ema"] == pytest.approx(momentum.cosine(0.9, 0.5)) == pytest.approx(0.95)


def test_batch_norm_and_biases_do_not_decay():
    net, recipe = model(), {**dino.recipe(), "lr": 0.1}
    decays = {
        id(p): group["weight_decay"] for group in optim.optimiser(net, recipe).param_groups for p in group["params"]
    }
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert decays[id(parameter)] == (0 if parameter.ndim == 1 else 1e-4), name
    plain = optim.optimiser(net, {key: value for key, value in recipe.items() if key != "flat_decay"})
    assert [group["weight_decay"] for group in plain.param_groups] == [1e-4]


def test_the_teacher_is_what_is_looked_at_and_written(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{i}.png")
    folder = Folder(tmp_path / "photos")
    asked = {"hidden": "16", "dim": "8", "prototypes": "6", "precision": "fp32"}
    recipe = resolved(dino, folder, "mini", None, 1, 4, asked)
    run_of = {"method": "dino", "arch": "resnet18", "scale": "mini", "seed": 0, "recipe": recipe, "data": {}}
    training = loop.Training(dino.DINO("resnet18", recipe), folder, run_of, dist.process())
    assert training.part("backbone") is training.model.teacher_backbone
    seen = []
    training.model.teacher_head.register_forward_hook(lambda *_: seen.append("teacher"))
    training.model.backbone.register_forward_hook(lambda *_: seen.append("student"))
    features, outputs = training.features([torch.zeros(2, 64, 64, 3, dtype=torch.uint8)])
    assert (features.shape, outputs.shape, seen) == ((2, 512), (2, 8), ["teacher"])
    written = loop.run(dino, folder.root, tmp_path / "out", "resnet18", "mini", None, 1, 4, overrides=asked)
    state = torch.load(tmp_path / "out" / "last.pth", weights_only=True)["model"]
    found = torch.load(written, weights_only=True)
    assert all(torch.equal(tensor, state[f"teacher_backbone.{key}"]) for key, tensor in found.items())
    assert not torch.equal(found["conv1.weight"], state["backbone.conv1.weight"])


def test_the_recipe_is_the_readmes_command():
    recipe = SimpleNamespace(**dino.recipe())
    assert (recipe.optimiser, recipe.base_lr, recipe.batch_size, recipe.epochs) == ("sgd", 0.03, 512, 100)
    assert (recipe.weight_decay, recipe.end_lr, recipe.warmup_epochs, recipe.sync_bn) == (1e-4, 1e-6, 10, True)
    assert (recipe.prototypes, recipe.temperature, recipe.teacher_temperature, recipe.ema) == (65536, 0.1, 0.04, 0.996)
    assert recipe.size == (224, 224) + (96,) * 8 and recipe.interpolation == "bicubic"
    assert set(recipe.crop_area[:2]) == {(0.14, 1.0)} and set(recipe.crop_area[2:]) == {(0.05, 0.14)}
    assert recipe.blur_p[:3] == (1.0, 0.1, 0.5) and recipe.solarize_p[:3] == (0.0, 0.2, 0.0)
    assert recipe.jitter == (0.4, 0.4, 0.2, 0.1)
