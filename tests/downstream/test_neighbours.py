import numpy as np
import pytest
import torch
import torch.nn.functional as F

from downstream import neighbours


@pytest.mark.parametrize("k", [1, 5, 20, 50])
def test_votes_are_those_written_out_in_numpy(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "SIMILARITIES", 200)  # several parts, the last one smaller
    draw = np.random.default_rng(k)
    keys, queries = (draw.normal(size=(n, 6)) for n in (50, 33))
    keys, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (keys, queries))
    labels = draw.integers(0, 4, 50)
    expected = np.zeros((33, 4))
    for i, query in enumerate(queries):
        cosines = [float(np.dot(query, key)) for key in keys]
        for j in sorted(range(50), key=lambda j: -cosines[j])[:k]:
            expected[i, labels[j]] += np.exp(cosines[j] / 0.07)
    tensors = (torch.tensor(x) for x in (queries, keys, labels))
    cosines, voters = neighbours.nearest(*tensors, 50)
    votes = neighbours.vote(cosines, voters, k, 0.07, 4).numpy()
    assert np.allclose(votes, expected, rtol=1e-9)
    assert np.array_equal(votes.argmax(1), expected.argmax(1))


@pytest.fixture(params=[False, True], ids=["slowly", "with instructions"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two passes of few keys, in several parts, on CPUs with and without instructions for bfloat16."""
    if request.param and not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU has no instructions for bfloat16")
    if not request.param:
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    monkeypatch.setattr(neighbours, "QUERIES", 40)
    monkeypatch.setattr(neighbours, "SIMILARITIES", 20_000)


def drawn(kind: str, images: int, dim: int) -> torch.Tensor:
    """[images, dim] of unit length."""
    x = torch.randn(images, dim)
    if kind == "collapsed":  # the bound excludes nobody
        x = 1 + 1e-3 * x
    if kind == "spread":
        x = x * torch.logspace(0, -3, dim) + torch.randn(5, dim)[torch.arange(images) % 5]
    if kind == "negative":
        x[:, 0] = 100.0
    return F.normalize(x, dim=1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["anywhere", "collapsed", "spread", "negative"])
def test_two_passes_find_the_neighbours_of_float64(kind: str) -> None:
    torch.manual_seed(0)
    keys, queries, k = drawn(kind, 3001, 48), drawn(kind, 99, 48), 20
    if kind == "negative":
        queries = -queries
    cosines, near = neighbours._twice(queries, keys, k)
    exact = queries.double() @ keys.double().T
    best = exact.topk(k).values
    assert (cosines - best).abs().max() < 1e-6
    assert (
        exact.gather(1, near) - best
    ).abs().max() < 1e-6  # the same keys, but for those that float32 cannot tell apart
    assert all(len(set(row)) == k for row in near.tolist())


def test_every_key_that_float64_puts_among_the_nearest_passes_the_first_pass() -> None:
    torch.manual_seed(0)
    for scale in (1.0, 1e-3, 30.0):  # lengths need not be one
        keys, queries, k = drawn("spread", 2048, 64) * scale, drawn("spread", 50, 64), 10
        rounded = queries.bfloat16()
        products = rounded @ keys.bfloat16().T
        error = (keys - keys.bfloat16().float()).norm(dim=1).max()
        bound = (queries - rounded.float()).norm(dim=1) * keys.norm(dim=1).max() + rounded.float().norm(dim=1) * error
        many, found = neighbours._candidates(products, k, 2 * bound + 1e-5 * scale)
        kept = dict(zip((~many).nonzero()[:, 0].tolist(), found, strict=True))
        nearest = (queries.double() @ keys.double().T).topk(k).indices
        assert len(kept) > 0
        for i, keys_of in kept.items():
            assert set(nearest[i].tolist()) <= set(keys_of.tolist())
            assert len(keys_of) < 1000


def test_the_few_equal_keys_of_a_query_are_all_found_once() -> None:
    torch.manual_seed(0)
    keys = drawn("anywhere", 4096, 32)
    keys[[5, 800, 4000]] = keys[7].clone()
    cosines, near = neighbours._twice(keys[7:8], keys, 4)
    assert set(near[0].tolist()) == {5, 7, 800, 4000}
    assert torch.allclose(cosines, torch.ones(1, 4))


def test_many_keys_on_such_a_cpu_are_gone_through_twice() -> None:
    keys = torch.zeros(neighbours.MANY, 1)
    assert neighbours.rounds(keys, 200) == torch.cpu._is_avx512_bf16_supported()
    assert not neighbours.rounds(keys[:-1], 200)
    assert not neighbours.rounds(keys.double(), 200)
    assert not neighbours.rounds(keys, neighbours.MANY // 2)
