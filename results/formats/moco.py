"""MoCo (arXiv 1911.05722), Tables 2b, 5a, 5c and 6: AP50 first on VOC, AP first elsewhere, difference from supervised.

The COCO FPN table is MoCo's own protocol (two fully connected layers in the box head), not PixPro's.
"""

from typing import Any

from results.sheet import Column
from results.table import Row, Table

ROWS = (
    Row(("random init.",), "random_init", "none"),
    Row(("super. IN-1M",), "supervised"),
    Row(("MoCo IN-1M",), "moco_v1", epochs=200),
    Row(("MoCo IG-1B",), "moco_v1", "IG-1B"),
)
DAGGER = (ROWS[0], Row(("super. IN-1M †",), "supervised"), *ROWS[2:])


def coco(task: str, *kinds: str) -> tuple[Column, ...]:
    """AP, AP50, AP75 of each kind of prediction: bb (boxes), mk (masks), kp (keypoints), dp (DensePose)."""
    return tuple(Column(f"AP{kind}{at}", task, f"AP{kind}{at}") for kind in kinds for at in ("", "50", "75"))


def table(name: str, title: str, source: str, columns: tuple[Column, ...], **more: Any) -> Table:
    more = {"rows": ROWS, "delta": "sign", **more}
    return Table(name, f"MoCo {title}", f"talk: MoCo Results, {source}", ("pre-train",), columns, **more)


TABLES = (
    table(
        "2b",
        "Table 2(b): PASCAL VOC detection, Faster R-CNN, R50-C4",
        "Table 2(b)",
        tuple(Column(metric, "voc_c4", metric) for metric in ("AP50", "AP", "AP75")),
        spread={"AP50": 0.2, "AP": 0.2, "AP75": 0.4},
        spread_source="facebookresearch/moco detection/README.md",
    ),
    table(
        "5a",
        "Table 5(a): COCO detection and instance segmentation, Mask R-CNN, R50-FPN, 1× schedule",
        "Table 5(a) 1x",
        coco("coco_fpn_1x", "bb", "mk"),
    ),
    table(
        "5c",
        "Table 5(c): COCO detection and instance segmentation, Mask R-CNN, R50-C4, 1× schedule",
        "Table 5(c) 1x",
        coco("coco_c4_1x", "bb", "mk"),
    ),
    table("6-keypoint", "Table 6: COCO keypoint detection", "Table 6 keypoint", coco("coco_keypoint_2x", "kp")),
    table("6-densepose", "Table 6: COCO dense pose estimation", "Table 6 densepose", coco("coco_densepose", "dp")),
    table(
        "6-lvis",
        "Table 6: LVIS v0.5 instance segmentation",
        "Table 6 LVIS",
        coco("lvis_v05_2x", "mk"),
        rows=DAGGER,
        notes=("† fine-tuned with frozen batch normalisation, which was better for this row; 2× schedule.",),
    ),
    table(
        "6-segmentation",
        "Table 6: Cityscapes instance segmentation, semantic segmentation (mIoU) on Cityscapes and VOC",
        "Table 6 Cityscapes/VOC seg",
        (
            Column("APmk", "cityscapes_instance", "APmk"),
            Column("APmk50", "cityscapes_instance", "APmk50"),
            Column("Cityscapes mIoU", "cityscapes_semantic", "mIoU"),
            Column("VOC mIoU", "voc_semantic", "mIoU"),
        ),
    ),
)
