"""Nearest neighbours by cosine, and their vote.

On a CPU that multiplies bfloat16 the nearest of many keys are found in two passes. The first multiplies everything in bfloat16, which
is three times as fast as float32, and drops the keys that cannot be among the k nearest; the second multiplies what is left in
float32. Nothing is lost: for the rounded q' and k',

    |q.k - q'.k'| <= |q - q'| |k| + |q'| |k - k'|    (Cauchy and Schwarz)

so that with e, this bound and the product's own rounding, a key of the k nearest has q'.k' >= t - 2e where k keys have q'.k' >= t.
The cosines are those of float32 products; keys whose cosines are equal in float32 may stand in either order, as they may in a
plain topk.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SIMILARITIES = 1 << 24  # of float32 that are held at a time
ROUGH = 1 << 26  # of bfloat16
QUERIES = 512  # at a time, at most; more do not multiply faster
STRANDS, FEWER = 16, 4  # the maxima of 16 keys are looked at first, those of 64 say how large the k-th at least is
MANY = 1 << 14  # keys, from which two passes are faster than one
CANDIDATES = 4  # times k maxima: a query with more that are near enough is multiplied in full


def nearest(queries: Tensor, keys: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest cosines, falling, and the labels of their keys: [Q, k] each; fewer where there are fewer keys.

    queries: [Q, D], keys: [N, D], of unit length; labels: [N]. Works through the queries in parts of bounded memory.
    """
    k = min(k, len(keys))
    if rounds(keys, k):
        cosines, near = _twice(queries, keys, k)
    else:
        cosines, near = _plainly(queries, keys, k)
    return cosines, labels[near]


def rounds(keys: Tensor, k: int) -> bool:
    """Whether two passes pay: many keys in float32, on a CPU with instructions for bfloat16."""
    return (
        keys.device.type == "cpu"
        and keys.dtype == torch.float32
        and len(keys) >= max(MANY, STRANDS * FEWER * k)
        and torch.cpu._is_avx512_bf16_supported()
    )


def vote(cosines: Tensor, voters: Tensor, k: int, temperature: float, classes: int) -> Tensor:
    """[Q, classes]: the sum over the k nearest of exp(cosine / temperature), by their class."""
    weights = (cosines[:, :k] / temperature).exp()
    return weights.new_zeros(len(weights), classes).scatter_add_(1, voters[:, :k], weights)


def _plainly(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest products, falling, and the numbers of their keys, [Q, k] each."""
    parts = [(part @ keys.T).topk(k) for part in queries.split(max(1, SIMILARITIES // len(keys)))]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _twice(queries: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`_plainly`, by way of bfloat16."""
    padded = F.pad(keys.bfloat16(), (0, 0, 0, -len(keys) % (STRANDS * FEWER)))
    pairs = zip(keys.split(QUERIES), padded[: len(keys)].split(QUERIES), strict=True)
    error = max(float((key - rounded.float()).norm(dim=1).max()) for key, rounded in pairs)
    length = float(keys.norm(dim=1).max())
    cosines, near = queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.long)
    size = max(1, min(QUERIES, len(queries), ROUGH // len(padded)))
    rough = torch.empty(size, len(padded), dtype=torch.bfloat16)
    for part in torch.arange(len(queries)).split(size):
        q, products = queries[part], rough[: len(part)]
        rounded = q.bfloat16()
        torch.mm(rounded, padded.T, out=products)
        products[:, len(keys) :] = -torch.inf
        bound = (q - rounded.float()).norm(dim=1) * length + rounded.float().norm(dim=1) * error
        bound += q.norm(dim=1) * length * 4 * keys.shape[1] * 2**-24  # sums of D terms in float32, in both passes
        many, found = _candidates(products, k, 2 * bound)
        cosines[part[~many]], near[part[~many]] = _best(q[~many], keys, found, k)
        if many.any():
            cosines[part[many]], near[part[many]] = _plainly(q[many], keys, k)
    return cosines, near


def _candidates(products: Tensor, k: int, margin: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """[Q], which queries have too many keys that may be among the k nearest; and of each other query, these keys' numbers.

    products: [Q, N] in bfloat16, of N a multiple of STRANDS * FEWER
    margin:   [Q], how much less than the k-th largest product one of the k nearest may have
    """
    # keys that follow one another, often of a class, lie in different maxima
    strands = products.view(len(products), STRANDS, -1)
    most = strands.amax(1)  # [Q, N / 16]
    kth = most.view(len(products), FEWER, -1).amax(1).topk(k).values[:, -1]  # at least k keys have as much
    # before it was rounded to bfloat16 it had 2 ** -8 of itself less, at most; the last rounding keeps the order
    least = (kth.float() - kth.float().abs() * 2**-8 - margin).bfloat16()
    near = most >= least[:, None]
    many = near.sum(dim=1) > CANDIDATES * k
    near[many] = False
    query, column = near.nonzero().unbind(1)
    place, strand = (strands[query, :, column] >= least[query, None]).nonzero().unbind(1)
    query, key = query[place], strand * most.shape[1] + column[place]
    return many, key.split(query.bincount(minlength=len(many))[~many].tolist())


def _best(queries: Tensor, keys: Tensor, candidates: Sequence[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Of each query's candidates, numbers of keys, the k of the largest products in float32, falling; and the keys' numbers."""
    cosines, near = queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.long)
    space = keys.new_empty(max(map(len, candidates), default=0), keys.shape[1])
    for i, (query, found) in enumerate(zip(queries, candidates, strict=True)):
        rows = torch.index_select(keys, 0, found, out=space[: len(found)])  # a few hundred, which lie in the cache
        best = torch.mv(rows, query).topk(k)
        cosines[i], near[i] = best.values, found[best.indices]
    return cosines, near
