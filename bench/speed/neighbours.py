"""Nearest neighbours against the loop of the published evaluations.

knn       the votes of the 200 nearest of 100,000 features of 512 channels for 50,000 queries, ImageNet's validation set: at least 3
          times as fast as lemniscate.pytorch's kNN (test.py), the same predictions. The features scatter about the centres of 1,000
          classes, with the falling spectrum that trained networks have.
"""

from pathlib import Path

from bench.speed import Row, faster

KEYS, QUERIES, CHANNELS, CLASSES = 100_000, 50_000, 512, 1_000
NEIGHBOURS, TEMPERATURE, BATCH = 200, 0.07, 100  # test.py and main.py of zhirongw/lemniscate.pytorch


def knn(folder: Path) -> list[Row]:
    """ValueError where the predictions differ by more than float32's ties."""
    import torch
    import torch.nn.functional as F

    from downstream import neighbours

    torch.manual_seed(0)
    spectrum = torch.arange(1, CHANNELS + 1) ** -0.5
    centres = torch.randn(CLASSES, CHANNELS) * spectrum
    labels, truth = torch.randint(CLASSES, (KEYS,)), torch.randint(CLASSES, (QUERIES,))
    keys, queries = (
        F.normalize(centres[of] + 1.5 * torch.randn(len(of), CHANNELS) * spectrum, dim=1) for of in (labels, truth)
    )

    def theirs() -> torch.Tensor:
        columns, found = keys.t(), []
        for batch in queries.split(BATCH):
            similarities = torch.mm(batch, columns)
            weights, near = similarities.topk(NEIGHBOURS, dim=1, largest=True, sorted=True)
            classes = torch.gather(labels.view(1, -1).expand(len(batch), -1), 1, near)
            one_hot = torch.zeros(len(batch) * NEIGHBOURS, CLASSES)
            one_hot.scatter_(1, classes.view(-1, 1), 1)
            weights = weights.clone().div_(TEMPERATURE).exp_()
            votes = torch.sum(one_hot.view(len(batch), -1, CLASSES) * weights.view(len(batch), -1, 1), 1)
            found.append(votes.sort(1, True)[1][:, 0])
        return torch.cat(found)

    def ours() -> torch.Tensor:
        cosines, voters = neighbours.nearest(queries, keys, labels, NEIGHBOURS)
        return neighbours.vote(cosines, voters, NEIGHBOURS, TEMPERATURE, CLASSES).argmax(1)

    different = int((ours() != theirs()).sum())
    if different > QUERIES // 1000:  # equal cosines or votes
        raise ValueError(f"expected the predictions of the plain loop, found {different} others")
    return [faster("knn", f"the plain loop, {QUERIES:,} queries, {KEYS:,} features of {CHANNELS}", 3.0, ours, theirs)]
