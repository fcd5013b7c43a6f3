import hashlib
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pretrain import loop, optim
from pretrain.methods import simclr, simclr_distill, simclr_finetune


def images(n: int = 4) -> list[torch.Tensor]:
    return [torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))]


@pytest.fixture
def pretrained(tmp_path):
    """last.pth of a SimCLR run whose running statistics have moved."""
    torch.manual_seed(0)
    net = simclr.SimCLR("resnet18", simclr.recipe())
    net(images() * 2)
    torch.save(left("simclr", model=net.state_dict()), tmp_path / "simclr.pth")
    return net, str(tmp_path / "simclr.pth")


def left(method, arch="resnet18", step=6, model=None, **recipe):
    """What a run's last.pth has, as far as it is read."""
    run = {"method": method, "arch": arch, "recipe": {"variant": "v2", "epochs": 3, **recipe}}
    return {"run": run, "step": step, "steps": 6, "model": model or {}}


def finetuned(path: str) -> simclr_finetune.SimCLRFinetune:
    return simclr_finetune.SimCLRFinetune("resnet18", {**simclr_finetune.recipe(), "classes": 5, "checkpoint": path})


def test_fine_tuning_goes_on_from_the_first_layer_of_the_head_with_a_classifier_of_zeros(pretrained):
    before, path = pretrained
    net = finetuned(path).eval()
    features = before.eval().head[:3](before.backbone(images()[0])).detach()
    with torch.no_grad():
        net.classifier.weight.copy_(torch.eye(512)[:5])
        torch.testing.assert_close(net.logits(images()[0]), features[:, :5])
    loss = finetuned(path)(images(), labels=torch.tensor([0, 1, 2, 3]))
    assert loss.item() == pytest.approx(math.log(5), abs=1e-6)
    assert sum(isinstance(part, nn.Linear) for part in net.head) == 1


def test_fine_tuning_trains_everything_and_scales_the_classifiers_step_as_little_as_a_biass(pretrained):
    net = finetuned(pretrained[1])
    nn.init.normal_(net.classifier.weight)  # zeros let no gradient through
    net(images(), labels=torch.tensor([0, 1, 2, 3])).backward()
    assert all(p.grad is not None for p in net.parameters())
    groups = optim.optimiser(net, {**simclr_finetune.recipe(), "lr": 1.0}).param_groups
    adapted = {id(p) for group in groups if group["adapt"] for p in group["params"]}
    assert adapted == {id(p) for p in net.parameters() if p.ndim > 1} - {id(net.classifier.weight)}


def test_the_students_loss_and_its_gradient_are_the_papers_equation_2(slope):
    student, teacher = np.random.default_rng(0).normal(size=(2, 4, 5))

    def formula(student, t):
        p, log_q = np.exp(teacher / t), student / t
        p, log_q = p / p.sum(axis=1, keepdims=True), log_q - np.log(np.exp(log_q).sum(axis=1, keepdims=True))
        return -(t**2) * np.mean((p * log_q).sum(axis=1))

    for t in (0.1, 1.0):
        x, y = (torch.tensor(z, requires_grad=True) for z in (student, teacher))
        loss = simclr_distill.distillation_loss(x, y, t)
        loss.backward()
        assert loss.item() == pytest.approx(formula(student, t), abs=1e-10)
        np.testing.assert_allclose(x.grad.numpy(), slope(lambda s, t=t: formula(s, t), student), atol=1e-6)
        assert y.grad is None


def test_the_teacher_is_the_fine_tuned_network_in_evaluation_and_never_learns(pretrained, tmp_path):
    net = finetuned(pretrained[1])
    nn.init.normal_(net.classifier.weight)
    torch.save(left("simclr_finetune", model=net.state_dict(), classes=5), tmp_path / "tuned.pth")
    recipe = {**simclr_distill.recipe(), "checkpoint": str(tmp_path / "tuned.pth")}
    student = simclr_distill.SimCLRDistill("resnet34", recipe).train()
    assert student.origin["sha256"] == hashlib.sha256((tmp_path / "tuned.pth").read_bytes()).hexdigest()
    running = student.teacher.backbone.bn1.running_mean.clone()
    student(images()).backward()
    assert all((p.grad is None) == name.startswith("teacher.") for name, p in student.named_parameters())
    assert torch.equal(student.teacher.backbone.bn1.running_mean, running)
    with torch.no_grad():
        torch.testing.assert_close(student.teacher.logits(images()[0]), net.eval().logits(images()[0]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"checkpoint=runs/simclr/last\.pth"),
        (b"cut short", "check checkpoint="),
        ({"run": {"method": "moco"}}, "check checkpoint="),
        (left("moco"), "found one of moco"),
        (left("simclr", "resnet50"), "--arch resnet50"),
        (
            left("simclr", layers=1),
            "head has at least 2 layers.*found 1 in .*last.pth: pretrain one with layers=2 or 3",
        ),
        (left("simclr", step=4), "finished run of simclr, found .* after step 4 of 6: .* --resume"),
    ],
)
def test_a_wrong_checkpoint_says_the_way_out(content, message, tmp_path):
    path = tmp_path / "last.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        finetuned(str(path) if content else "")
    with pytest.raises(FileNotFoundError, match="no file"):
        finetuned(str(tmp_path / "nothing.pth"))


def test_the_recipes_are_the_readmes_command_and_the_papers_two_cases():
    one = simclr_finetune.recipe()
    assert one["base_lr"] * math.sqrt(one["batch_size"]) == pytest.approx(0.16)
    assert (one["epochs"], one["weight_decay"], one["warmup_epochs"]) == (60, 0.0, 0.0)
    assert simclr_finetune.recipe("10pct")["epochs"] == 30
    assert [simclr_distill.recipe(v)["temperature"] for v in ("self", "small")] == [0.1, 1.0]
    with pytest.raises(ValueError, match="1pct or 10pct"):
        simclr_finetune.recipe("100pct")
    with pytest.raises(ValueError, match="self or small"):
        simclr_distill.recipe("big")


def test_what_is_published_names_the_checkpoint_but_not_where_it_lay(pretrained, tmp_path):
    for i in range(4):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8)).save(path)
    options = {"checkpoint": pretrained[1], "precision": "fp32", "warmup_epochs": "0"}
    again = partial(
        loop.run,
        simclr_finetune,
        tmp_path / "photos",
        tmp_path / "out",
        "resnet18",
        "mini",
        epochs=1,
        batch_size=2,
        overrides=options,
    )
    out = again()
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["recipe"]["checkpoint"] == about["overrides"]["checkpoint"] == "simclr.pth"
    assert str(tmp_path) not in out.with_suffix(".json").read_text()
    begun = {"method": "simclr", "variant": "v2", "arch": "resnet18", "epochs": 3}
    assert about["origin"] == begun | {"sha256": hashlib.sha256(Path(pretrained[1]).read_bytes()).hexdigest()}
    torch.save(left("simclr", step=7, model=pretrained[0].state_dict()), pretrained[1])
    with pytest.raises(ValueError, match=r"origin .* -> .*: call as before"):  # another file in its place
        again(resume=True)
