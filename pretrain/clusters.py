"""k-means and what goes before it: whole folders of features, in slices where a table of all distances would not fit."""

import torch
import torch.nn.functional as F

ROWS = 8192  # of a slice


def nearest(x: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The number of each row's nearest centroid, [N]. x: [N, C]; centroids: [K, C]."""
    offset = centroids.square().sum(dim=1) / 2  # |x - c|^2 / 2 without |x|^2 / 2
    return torch.cat([(part @ centroids.T - offset).argmax(dim=1) for part in x.split(ROWS)])


def means(x: torch.Tensor, labels: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[K, C], the mean of every cluster (0 where it is empty), and [K], its size. x: [N, C]; labels: [N]."""
    sizes = labels.bincount(minlength=k)
    sums = x.new_zeros(k, x.shape[1]).index_add_(0, labels, x)
    return sums / sizes.clamp(min=1)[:, None], sizes


def spherical_kmeans(x: torch.Tensor, centroids: torch.Tensor, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """k-means by the cosine: [K, C], the centroids of unit length, and [N], the labels.

    x: [N, C] of unit length; centroids: [K, C] of unit length to begin with; an empty cluster keeps its own
    """
    for _ in range(iterations):
        mean, sizes = means(x, nearest(x, centroids), len(centroids))
        centroids = F.normalize(torch.where(sizes[:, None] > 0, mean, centroids), dim=1)
    return centroids, nearest(x, centroids)


def kmeans(x: torch.Tensor, centroids: torch.Tensor, iterations: int) -> torch.Tensor:
    """Lloyd's k-means: the labels, [N].

    x: [N, C]; centroids: [K, C] to begin with; an empty cluster takes half of the largest one, where faiss
       draws which by size (split_clusters)
    """
    apart = 1 + (1 - 2 * (torch.arange(x.shape[1], device=x.device) % 2)) / 1024  # [C], above and below 1 in turn
    for _ in range(iterations):
        centroids, sizes = means(x, nearest(x, centroids), len(centroids))
        for empty in (sizes == 0).nonzero()[:, 0]:
            large = sizes.argmax()
            centroids[empty] = centroids[large] * apart
            centroids[large] *= 2 - apart
            sizes[empty] = sizes[large] // 2
            sizes[large] -= sizes[empty]
    return nearest(x, centroids)


def whitened(x: torch.Tensor, dim: int, device: torch.device) -> torch.Tensor:
    """The first `dim` principal components at equal variance, then every row at unit length, [N, dim] on the device.

    x: [N, C], which may lie elsewhere and be too large for the device, or for a second time in memory
    """
    mean, parts = x.mean(dim=0).to(device), x.split(ROWS)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype, device=device)
    for part in parts:
        y = part.to(device) - mean
        covariance += y.T @ y / len(x)
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    values, vectors = values[-dim:], vectors[:, -dim:]
    axes = vectors / values.clamp(min=1e-6 * values[-1]).sqrt()
    return torch.cat([F.normalize((part.to(device) - mean) @ axes, dim=1) for part in parts])
