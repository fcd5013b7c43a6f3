import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.methods import infomin


def model(**changes) -> infomin.InfoMin:
    torch.manual_seed(0)
    return infomin.InfoMin(
        "resnet18", {**infomin.recipe(), "queue": 16, "dim": 8, "bn_group": 2, **changes}
    ).double()  # batch norm of two images magnifies rounding


def views(n=4):
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(n, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(2)]
    return [*images, torch.randn(n, 9, 3, 16, 16, generator=generator, dtype=torch.float64)]


def infonce(q, k, queue, temperature):
    logits = np.concatenate([(q * k).sum(axis=1, keepdims=True), q @ queue], axis=1) / temperature
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])


def test_the_loss_is_the_weighted_mean_of_query_and_patches_against_one_queue():
    net, twin = model(patch_weight=0.3), model(patch_weight=0.3)
    x_q, x_k, patches = views()
    queue = net.queue.queue.double().numpy().copy()
    torch.manual_seed(5)
    loss = net([x_q, x_k, patches])
    with torch.no_grad():
        q = F.normalize(twin.head(torch.cat([twin.backbone(part) for part in x_q.split(2)])), dim=1)
        torch.manual_seed(5)
        q_patches = twin.jigsaw(twin.backbone, patches, 2)
        order = torch.randperm(4)
        k = torch.empty(4, 8, dtype=torch.float64)
        k[order] = torch.cat([twin.key_head(twin.key_backbone(part)) for part in x_k[order].split(2)])
        k = F.normalize(k, dim=1)
    parts = [infonce(x.double().numpy(), k.double().numpy(), queue, 0.15) for x in (q, q_patches)]
    assert loss.item() == pytest.approx(0.7 * parts[0] + 0.3 * parts[1], rel=1e-4)
    torch.testing.assert_close(net.queue.queue[:, :4], k.T, atol=1e-5, rtol=0)  # the keys alone, in the batch's order
    np.testing.assert_array_equal(net.queue.queue[:, 4:].numpy(), queue[:, 4:])


def test_the_key_network_is_equal_at_step_0_and_follows_after_the_optimisers_step():
    net = model(ema=0.9)
    start = net.key_backbone.conv1.weight.clone()
    assert torch.equal(start, net.backbone.conv1.weight)
    assert all(torch.equal(a, b) for a, b in zip(net.key_head.parameters(), net.head.parameters(), strict=True))
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    expected = start.double()
    for _ in range(3):
        optimiser.zero_grad()
        net(views()).backward()
        assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("key_"))
        assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("key_"))
        kept = net.key_backbone.conv1.weight.clone()
        optimiser.step()
        assert torch.equal(net.key_backbone.conv1.weight, kept)  # not before the keys of a step, as MoCo does
        net.after_update(0.0)
        expected = 0.9 * expected + 0.1 * net.backbone.conv1.weight.detach().double()
    torch.testing.assert_close(net.key_backbone.conv1.weight.double(), expected, atol=1e-6, rtol=1e-5)
    assert (start - net.key_backbone.conv1.weight).abs().max() > 1e-5


def test_the_recipe_is_the_released_one():
    recipe = infomin.recipe()
    assert (recipe["temperature"], recipe["queue"], recipe["ema"], recipe["patch_weight"]) == (0.15, 65536, 0.999, 0.5)
    assert recipe["end_factor"] == pytest.approx(0.1**3)
    assert recipe["randaugment"][recipe["jigsaw"]] is None
    with pytest.raises(ValueError, match="no variant"):
        infomin.recipe("800ep")
