"""DenseCL: MoCo v2 twice, once for the image and once for every place of its last map; a place's positive is the most similar
place of the other view.

Paper: arXiv 2011.09157; code: WXinlong/DenseCL, configs/selfsup/densecl/. The variants are the data: "imagenet" (200 epochs) and
"coco" (800 epochs of train2017 at ten times the learning rate).
Expected, ResNet-50, imagenet: VOC07+12 C4 AP 58.7, VOC segmentation 69.4 mIoU; coco: 56.7 and 67.5, after 1600 epochs 57.2 and 68.0
(README). Linear top-1 63.3 to 63.6 (open-mmlab/mmselfsup's model zoo).

    bench pretrain densecl --data imagenet/train
    bench pretrain densecl --data coco/train2017 --variant coco

Difference: the backbone's convolutions start with torchvision's variance (fan-out), the code's with fan-in. At the mini scale a
64-pixel view has a 2x2 map, whose places are told from the queue's means by their place alone (accuracy_places is soon 100).
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, contrast, dist, heads, memory, momentum, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe for imagenet (default) or coco."""
    if variant not in (None, "imagenet", "coco"):
        raise ValueError(f"expected variant imagenet or coco of densecl, found {variant!r}")
    coco = variant == "coco"
    return {
        "variant": "coco" if coco else "imagenet",
        # architecture: the configuration's model
        "dim": 128,
        "queue": 65536,  # and a second one as long, of the maps' means
        "ema": 0.999,
        "temperature": 0.2,
        "dense_weight": 0.5,  # loss_lambda
        "bn_group": 32,  # imgs_per_gpu
        # views: train_pipeline, MoCo v2's
        **augmentations.MOCO2,
        # optimisation: optimizer, lr_config, total_epochs
        **optim.MOCO,
        "epochs": 800 if coco else 200,
        "base_lr": 0.3 if coco else 0.03,  # a 256 images
    }


def matched(map_q: torch.Tensor, map_k: torch.Tensor, dense_k: torch.Tensor) -> torch.Tensor:
    """For every place of the query's map, the dense key of the place whose backbone feature is most similar: [N, C, HW].

    map_q, map_k: [N, D, H, W], the backbones' features, compared by their cosine; no gradient
    dense_k:      [N, C, HW]
    """
    with torch.no_grad():
        f_q, f_k = (F.normalize(x.float().flatten(2), dim=1) for x in (map_q, map_k))
        place = (f_q.transpose(1, 2) @ f_k).argmax(dim=2)  # [N, HW], a place of the key's map for each of the query's
        return dense_k.gather(2, place[:, None].expand(-1, dense_k.shape[1], -1))


class DenseCL(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.temperature, self.bn_group = recipe["ema"], recipe["temperature"], recipe["bn_group"]
        self.dense_weight = recipe["dense_weight"]
        self.backbone, width = heads.backbone(arch)
        self.head = heads.mlp([width, width, recipe["dim"]], norm=False)
        for layer in self.head[::2]:  # necks.py, init_linear="kaiming"; the convolutions keep torch's start
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.dense_head = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(inplace=True), nn.Conv2d(width, recipe["dim"], 1)
        )
        self.key_backbone = momentum.follower(self.backbone)
        self.key_head = momentum.follower(self.head)
        self.key_dense_head = momentum.follower(self.dense_head)
        self.queue = memory.Queue(recipe["dim"], recipe["queue"])
        self.dense_queue = memory.Queue(recipe["dim"], recipe["queue"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The weighted mean of the images' and the places' InfoNCE, a scalar; about ln(K + 1) at the start.

        views: two tensors [N, 3, S, S], the query's and the key's
        """
        x_q, x_k = views
        map_q = heads.by_group(partial(heads.last_map, self.backbone), x_q, min(self.bn_group, len(x_q)))
        q, dense_q = self.head(map_q.mean(dim=(2, 3))), self.dense_head(map_q).flatten(2)  # [N, C], [N, C, HW]
        with torch.no_grad():
            self.follow()  # before the key forward
            map_k = momentum.shuffled(partial(heads.last_map, self.key_backbone), x_k, self.bn_group)
            k, dense_k = self.key_head(map_k.mean(dim=(2, 3))).float(), self.key_dense_head(map_k).flatten(2).float()
            k, dense_k, mean_k = (F.normalize(x, dim=1) for x in (k, dense_k, dense_k.mean(dim=2)))
        with heads.full_precision(q):
            q, dense_q = F.normalize(q.float(), dim=1), F.normalize(dense_q.float(), dim=1)
            # [N HW, C] each
            places_q, places_k = (x.transpose(1, 2).flatten(0, 1) for x in (dense_q, matched(map_q, map_k, dense_k)))
            of_image = contrast.queue_logits(q, k, self.queue.queue, self.temperature)
            of_places = contrast.queue_logits(places_q, places_k, self.dense_queue.queue, self.temperature)
            loss = contrast.softmax_loss(of_image) * (1 - self.dense_weight)
            loss = loss + contrast.softmax_loss(of_places) * self.dense_weight
        self.queue.enqueue(dist.gathered(k))
        self.dense_queue.enqueue(dist.gathered(mean_k))
        self.statistics = {"accuracy": contrast.accuracy(of_image), "accuracy_places": contrast.accuracy(of_places)}
        return loss

    def follow(self) -> None:
        momentum.follow(self.key_backbone, self.backbone, self.m)
        momentum.follow(self.key_head, self.head, self.m)
        momentum.follow(self.key_dense_head, self.dense_head, self.m)


METHOD = DenseCL
