import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import contrast
from pretrain.methods import densecl


def model(**changes) -> densecl.DenseCL:
    torch.manual_seed(0)
    return densecl.DenseCL("resnet18", {**densecl.recipe(), "queue": 16, "dim": 8, "bn_group": 2, **changes})


def images(n=4, side=64):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator) for _ in range(2)]


def infonce(q, k, queue, temperature):
    logits = np.concatenate([(q * k).sum(axis=1, keepdims=True), q @ queue], axis=1) / temperature
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])


def partner(f_q, f_k, place):
    """The place of the key's map [D, HW] with the largest cosine to a place of the query's, by brute force."""
    cosines = [
        f_q[:, place] @ f_k[:, j] / np.linalg.norm(f_q[:, place]) / np.linalg.norm(f_k[:, j])
        for j in range(f_k.shape[1])
    ]
    return int(np.argmax(cosines))


def test_a_places_partner_is_the_most_similar_by_the_backbones_cosine_not_by_the_dense_heads():
    rng = np.random.default_rng(0)
    map_q, map_k = rng.normal(size=(2, 3, 5, 2, 4)) * rng.uniform(
        0.1, 9, size=(2, 3, 1, 2, 4)
    )  # lengths must not matter
    dense = rng.normal(size=(3, 6, 8))
    found = densecl.matched(torch.tensor(map_q), torch.tensor(map_k), torch.tensor(dense)).numpy()
    for n in range(3):
        f_q, f_k = map_q[n].reshape(5, 8), map_k[n].reshape(5, 8)
        expected = np.stack([dense[n][:, partner(f_q, f_k, i)] for i in range(8)], axis=1)
        np.testing.assert_array_equal(found[n], expected)


def test_equal_maps_pair_every_place_with_itself_and_mirrored_ones_with_their_mirror_image():
    x = torch.randn(2, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    dense = torch.arange(9.0).expand(2, 1, 9)
    assert torch.equal(densecl.matched(x, 3 * x, dense), dense)
    assert densecl.matched(x, x.flip(3), dense)[0, 0].tolist() == [2, 1, 0, 5, 4, 3, 8, 7, 6]


def test_no_gradient_flows_through_the_correspondence():
    map_q = torch.randn(2, 4, 2, 2, requires_grad=True)
    assert not densecl.matched(map_q, torch.randn(2, 4, 2, 2), torch.randn(2, 3, 4)).requires_grad


def test_the_places_loss_and_its_gradient_are_the_formula(slope):
    rng = np.random.default_rng(0)
    dense_q, dense_k = rng.normal(size=(2, 2, 3, 4))  # [N, C, HW]
    map_q, map_k, queue = rng.normal(size=(2, 5, 2, 2)), rng.normal(size=(2, 5, 2, 2)), rng.normal(size=(3, 7))

    def formula(q):
        rows, keys = [], []
        for n in range(2):
            for i in range(4):
                rows.append(q[n, :, i] / np.linalg.norm(q[n, :, i]))
                keys.append(dense_k[n][:, partner(map_q[n].reshape(5, 4), map_k[n].reshape(5, 4), i)])
        return infonce(np.array(rows), np.array(keys), queue, 0.2)

    x = torch.tensor(dense_q, requires_grad=True)
    q = F.normalize(x, dim=1).transpose(1, 2).flatten(0, 1)
    k = densecl.matched(torch.tensor(map_q), torch.tensor(map_k), torch.tensor(dense_k)).transpose(1, 2).flatten(0, 1)
    loss = contrast.softmax_loss(contrast.queue_logits(q, k, torch.tensor(queue), 0.2))
    loss.backward()
    assert loss.item() == pytest.approx(formula(dense_q), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(formula, dense_q), atol=1e-6)


def test_the_loss_is_the_weighted_mean_of_images_and_places_and_the_queues_take_keys_and_mean_dense_keys():
    net, twin = model(dense_weight=0.3), model(dense_weight=0.3)
    x_q, x_k = images()
    queues = [q.queue.double().numpy().copy() for q in (net.queue, net.dense_queue)]
    torch.manual_seed(5)
    loss = net([x_q, x_k])
    numpy = lambda x: x.double().numpy()  # noqa: E731
    trunk = lambda b: nn.Sequential(*list(b.children())[:-2])  # noqa: E731, torchvision's own order of layers
    with torch.no_grad():
        map_q = torch.cat([trunk(twin.backbone)(part) for part in x_q.split(2)])
        torch.manual_seed(5)
        order = torch.randperm(4)
        map_k = torch.empty(4, 512, 2, 2)
        map_k[order] = torch.cat([trunk(twin.key_backbone)(part) for part in x_k[order].split(2)])
        pooled = [F.adaptive_avg_pool2d(m, 1).flatten(1) for m in (map_q, map_k)]
        q, k = numpy(F.normalize(twin.head(pooled[0]), dim=1)), numpy(F.normalize(twin.key_head(pooled[1]), dim=1))
        dense_q = numpy(F.normalize(twin.dense_head(map_q), dim=1).flatten(2))
        raw_k = twin.key_dense_head(map_k).flatten(2)
        dense_k, mean_k = numpy(F.normalize(raw_k, dim=1)), numpy(F.normalize(raw_k.mean(dim=2), dim=1))
    map_q, map_k = numpy(map_q).reshape(4, 512, 4), numpy(map_k).reshape(4, 512, 4)
    rows = np.array([dense_q[n][:, i] for n in range(4) for i in range(4)])
    keys = np.array([dense_k[n][:, partner(map_q[n], map_k[n], i)] for n in range(4) for i in range(4)])
    expected = 0.7 * infonce(q, k, queues[0], 0.2) + 0.3 * infonce(rows, keys, queues[1], 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    for queue, new, old in zip((net.queue, net.dense_queue), (k, mean_k), queues, strict=True):
        np.testing.assert_allclose(queue.queue[:, :4].numpy(), new.T, atol=1e-5)
        np.testing.assert_array_equal(queue.queue[:, 4:].numpy(), old[:, 4:].astype(np.float32))


def test_the_key_network_is_equal_at_step_0_and_follows_before_the_keys():
    net = model(ema=0.9)
    pairs = [(net.key_backbone, net.backbone), (net.key_head, net.head), (net.key_dense_head, net.dense_head)]
    for key, query in pairs:
        assert all(torch.equal(a, b) for a, b in zip(key.parameters(), query.parameters(), strict=True))
    before = net.key_dense_head[0].weight.clone()
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(images()).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("key_"))
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("key_"))
    optimiser.step()
    net(images())
    torch.testing.assert_close(net.key_dense_head[0].weight, 0.9 * before + 0.1 * net.dense_head[0].weight)


def test_the_heads_have_the_backbones_width_and_no_batch_norm():
    net = densecl.DenseCL("resnet18", {**densecl.recipe(), "queue": 16})
    assert [tuple(p.shape) for p in net.head.parameters()] == [(512, 512), (512,), (128, 512), (128,)]
    assert [tuple(p.shape) for p in net.dense_head.parameters()] == [(512, 512, 1, 1), (512,), (128, 512, 1, 1), (128,)]
    assert net.head[2].weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)  # kaiming, fan-in


def test_the_recipes_differ_in_data_length_and_rate():
    imagenet, coco = densecl.recipe(), densecl.recipe("coco")
    assert {key for key in coco if coco[key] != imagenet[key]} == {"variant", "epochs", "base_lr"}
    assert (coco["epochs"], coco["base_lr"]) == (800, 0.3)
    with pytest.raises(ValueError, match="imagenet or coco"):
        densecl.recipe("voc")
