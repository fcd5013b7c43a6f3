import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from pretrain import clusters, data, dist, loop, optim, recipes
from pretrain.methods import deepcluster


def model(variant=None, **changes):
    torch.manual_seed(0)
    small = {"images": 24, "prototypes": 6} | ({} if variant == "v1" else {"hidden": 16, "dim": 8})
    return deepcluster.METHOD("resnet18", {**deepcluster.recipe(variant), **small, **changes})


def folder(sides, batch: int = 8, images: int = 24):
    """Every image of a folder of noise in batches of (views, indices)."""
    generator = torch.Generator().manual_seed(1)
    views = [torch.randn(images, 3, side, side, generator=generator) for side in sides]
    return [([x[i : i + batch] for x in views], torch.arange(i, i + batch)) for i in range(0, images, batch)]


def clouds(n: int = 60, spread: float = 0.3) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.tensor(rng.normal(size=(4, 5))[rng.integers(4, size=n)] + spread * rng.normal(size=(n, 5)))


def test_kmeans_is_scikit_learns_from_the_same_start():
    x = clouds(spread=1.0)
    for iterations in (1, 3, 20):
        reference = KMeans(7, init=x[:7].numpy(), n_init=1, max_iter=iterations, tol=0).fit(x.numpy())
        # scikit-learn stops when nothing moves; the labels are those of the last centroids
        expected = torch.cdist(x, torch.tensor(reference.cluster_centers_)).argmin(dim=1)
        assert torch.equal(clusters.kmeans(x, x[:7], iterations), expected)


def test_kmeans_refills_an_empty_cluster():
    x = clouds()
    far = x[:4].clone()
    far[3] = 100.0
    assert (clusters.kmeans(x, far, 0) == 3).sum() == 0
    assert (clusters.kmeans(x, far, 10).bincount(minlength=4) > 0).all()


def test_spherical_kmeans_is_the_loop_of_cluster_memory_in_numpy():
    x = F.normalize(clouds(spread=1.0), dim=1)
    centroids = x[[0, 1, 2, 2]].numpy().copy()  # the fourth starts empty: argmax takes the first of two equal ones
    for _ in range(10):
        labels = (x.numpy() @ centroids.T).argmax(axis=1)
        for k in range(4):
            if (labels == k).any():
                mean = x.numpy()[labels == k].mean(axis=0)
                centroids[k] = mean / np.linalg.norm(mean)
    found, labels = clusters.spherical_kmeans(x, x[[0, 1, 2, 2]], 10)
    np.testing.assert_allclose(found.numpy(), centroids, atol=1e-12)
    np.testing.assert_array_equal(labels.numpy(), (x.numpy() @ centroids.T).argmax(axis=1))


def test_whitening_in_slices_is_scikit_learns_pca_at_unit_length(monkeypatch):
    monkeypatch.setattr(clusters, "ROWS", 7)
    x = clouds(spread=1.0) * torch.tensor([10.0, 1, 1, 0.1, 3])
    reference = PCA(3, whiten=True).fit_transform(x.numpy())
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    found = clusters.whitened(x, 3, x.device)
    np.testing.assert_allclose((found @ found.T).numpy(), reference @ reference.T, atol=1e-8)  # up to signs and order
    flat = torch.cat([x, torch.zeros(60, 4).double()], dim=1)  # outputs that never move
    assert clusters.whitened(flat, 8, x.device).isfinite().all()
    elsewhere = clusters.whitened(x, 3, torch.device("meta"))  # where the features do not lie
    assert (elsewhere.shape, elsewhere.device.type) == ((60, 3), "meta")


def test_v2_learns_the_clusters_of_the_stored_embeddings_by_cross_entropy():
    net = model()
    net.survey(0, folder((32, 32)))
    assert net.prototypes.shape == (3, 6, 8)
    for s, bank in ((0, 0), (1, 1), (2, 0)):  # the crops take turns
        torch.testing.assert_close(net.prototypes[s].norm(dim=1), torch.ones(6))
        assert torch.equal(net.clusters[s], (net.memory[bank] @ net.prototypes[s].T).argmax(dim=1))
    views, indices = folder((32, 32, 24))[1]
    centroids, targets = net.prototypes.clone(), net.clusters.clone()
    loss = net(views, indices=indices)
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    z = net.memory[:, indices].numpy()  # forward has replaced them
    small = F.normalize(net.head(torch.cat([net.backbone(torch.cat(views[:2])), net.backbone(views[2])])), dim=1)
    np.testing.assert_allclose(z.reshape(16, 8), small[:16].detach().numpy(), atol=1e-5)
    losses = []
    for s in range(3):
        logits = small.detach().double().numpy() @ centroids[s].double().numpy().T / 0.1
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        losses.append(-np.mean(log_p[np.arange(24), np.tile(targets[s][indices].numpy(), 3)]))
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    assert torch.equal(net.prototypes, centroids)  # never trained, changed before an epoch only


def test_v2_looks_at_the_folder_before_the_first_epoch_only():
    net = model()
    net.survey(0, folder((32, 32)))
    memory = net.memory.clone()
    assert memory.norm(dim=2).allclose(torch.ones(2, 24))
    net.survey(1, iter(lambda: 1 / 0, None))
    assert torch.equal(net.memory, memory)


def test_v2s_first_look_mixes_the_classes_as_training_does(tmp_path, monkeypatch):
    for i in range(24):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{i:02}.png")
    images, looked = data.Folder(tmp_path), []
    recipe = recipes.resolved(deepcluster, images, "mini", "v2_2x224", 1, 8)
    run = {"recipe": recipe, "seed": 0}
    training = loop.Training(
        deepcluster.METHOD("resnet18", recipe), images, run, dist.Process(0, 1, torch.device("cpu"))
    )
    monkeypatch.setattr(
        training.model, "survey", lambda epoch, look: looked.extend(i for _, part in look for i in part)
    )
    monkeypatch.setenv("BENCH_WORKERS", "0")
    training.begin_epoch()
    assert looked == [i for step in range(3) for i in training.source.indices(step)]
    assert looked != sorted(looked)


def test_v1_clusters_the_whitened_features_and_starts_a_new_classifier():
    net = model("v1", whitened=4)
    with torch.no_grad():
        for part in net.backbone.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_()
    running, old = net.backbone.bn1.running_mean.clone(), net.classifier.weight.clone()
    images = folder((32,))
    net.survey(0, images)
    assert torch.equal(net.backbone.bn1.running_mean, running)  # in evaluation
    assert net.backbone.training
    assert not torch.equal(net.classifier.weight, old)
    assert net.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not net.classifier.bias.any()
    features = net.backbone.eval()(torch.cat([views[0] for views, _ in images])).detach()
    net.train()
    torch.manual_seed(5)
    first = torch.randperm(24)[:6]
    torch.manual_seed(5)
    net.survey(1, images)
    x = clusters.whitened(features, 4, features.device)
    assert torch.equal(net.clusters, clusters.kmeans(x, x[first], 20))
    # a mean of the weights in a cluster times its size is the same for all: the sampler that is even over clusters
    shares = torch.zeros(6).index_add_(0, net.clusters, net.weights)
    taken = shares[shares > 0]
    torch.testing.assert_close(taken, torch.full_like(taken, 24 / len(taken)))


@pytest.mark.parametrize(
    ("variant", "names"), [(None, ("prototypes", "clusters")), ("v1", ("clusters", "classifier.weight"))]
)
def test_what_was_clustered_is_taken_from_rank_0(variant, names, monkeypatch):
    net, taken = model(variant, whitened=4), []
    own = {id(x) for x in (*net.parameters(), *net.buffers())}  # the order of a permutation is none of them
    monkeypatch.setattr(
        deepcluster.dist, "as_first", lambda *tensors: taken.extend(id(x) for x in tensors if id(x) in own)
    )
    net.survey(0, folder((32,) if variant else (32, 32)))
    assert taken == [id(net.get_parameter(n) if "weight" in n else net.get_buffer(n)) for n in names]


def test_v1s_loss_is_the_weighed_cross_entropy_and_trains_everything():
    net = model("v1", whitened=4)
    net.survey(0, folder((32,)))
    views, indices = folder((32,))[2]
    loss = net(views, indices=indices)
    loss.backward()
    logits = net.classifier(net.backbone(views[0])).detach().double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(net.weights[indices].numpy() * log_p[np.arange(8), net.clusters[indices].numpy()])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is not None for p in net.parameters())


def test_v1s_classifier_alone_learns_without_momentum():
    net = model("v1", whitened=4)
    groups = optim.optimiser(net, {**deepcluster.recipe("v1"), "lr": 0.05}).param_groups
    found = {group["momentum"]: {id(p) for p in group["params"]} for group in groups}
    assert found == {0.9: {id(p) for p in net.backbone.parameters()}, 0.0: {id(p) for p in net.classifier.parameters()}}


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_two_processes_find_the_clusters_and_gradients_of_one(variant, two_processes):
    small = {"prototypes": 4} | ({"whitened": 4} if variant == "v1" else {"hidden": 16, "dim": 8})
    one, *two = two_processes("deepcluster", variant, sides=(32,) if variant == "v1" else (32, 32, 24), **small)
    for found in two:
        assert torch.equal(found["buffers"]["clusters"], one["buffers"]["clusters"])
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        weight = one["gradients"]["backbone.conv1.weight"]
        scale = weight.abs().max().item()
        torch.testing.assert_close(found["gradients"]["backbone.conv1.weight"], weight, rtol=1e-3, atol=1e-4 * scale)


def test_everything_that_a_resume_needs_is_in_the_state():
    assert model().state_dict().keys() >= {"memory", "prototypes", "clusters"}
    assert model("v1", whitened=4).state_dict().keys() >= {"clusters", "weights", "classifier.weight"}


def test_the_recipes_are_the_scripts():
    v2, large, v1 = (deepcluster.recipe(variant) for variant in ("v2", "v2_2x224", "v1"))
    assert deepcluster.recipe() == v2
    assert v2["base_lr"] * v2["batch_size"] / 256 == pytest.approx(4.8)
    assert (v2["sets"], v2["prototypes"], v2["iterations"], v2["temperature"]) == (3, 3000, 10, 0.1)
    assert (v2["epochs"], large["epochs"], large["views"]) == (800, 400, 2)
    assert (v1["prototypes"], v1["whitened"], v1["iterations"]) == (10000, 256, 20)
    assert (v1["base_lr"], v1["weight_decay"], v1["batch_size"], v1["epochs"]) == (0.05, 1e-5, 256, 200)
    with pytest.raises(ValueError, match="v1, v2 or v2_2x224"):
        deepcluster.recipe("v3")
    with pytest.raises(ValueError, match=r"at least one image a cluster.*: prototypes=2$"):
        model(prototypes=30)
