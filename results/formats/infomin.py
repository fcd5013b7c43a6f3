"""InfoMin (arXiv 2005.10243), its two detection tables: VOC with ImageNet accuracy, and COCO with arrows for differences.

The last column of the VOC table is linear evaluation, for the supervised row the accuracy of the network itself.
"""

from results.sheet import Column
from results.table import BEST_EPOCH, Row, Table

CLASSIFIER = (
    "ImageNet Acc: the published rows' classifier is PyContrast's (60 epochs, crops of a fifth of the image or more), as is that of a "
    "measured row of imagenet_linear_pycontrast; that of a row of imagenet_linear is MoCo's (100 epochs, of 8 % or more)."
)
STAR = "* quoted from the MoCo paper."

TABLES = (
    Table(
        name="voc",
        title="InfoMin: PASCAL VOC object detection, R50-C4",
        source="talk: InfoMin VOC table",
        leads=("pre-train",),
        columns=(
            *(Column(metric, "voc_c4", metric) for metric in ("AP50", "AP", "AP75")),
            Column(
                "ImageNet Acc(%)",
                "imagenet_linear",
                "top1",
                recipe="imagenet_linear_pycontrast",
                also="imagenet_supervised",
            ),
        ),
        rows=(
            Row(("random init.*",), "random_init", "none"),
            Row(("supervised*",), "supervised"),
            Row(("InstDis",), "instdis", epochs=200),
            Row(("PIRL",), "pirl", epochs=200),
            Row(("MoCo*",), "moco_v1", epochs=200),
            Row(("InfoMin Aug. (ours)",), "infomin", epochs=200),
        ),
        notes=(STAR, CLASSIFIER, BEST_EPOCH),
    ),
    Table(
        name="coco",
        title="InfoMin: COCO object detection, R50-C4",
        source="talk: InfoMin COCO table",
        leads=("pre-train",),
        columns=tuple(Column(metric, "coco_c4_1x", metric) for metric in ("APbb", "APbb50", "APbb75")),
        rows=(
            Row(("random init*",), "random_init", "none"),
            Row(("supervised*",), "supervised"),
            Row(("MoCo*",), "moco_v1", epochs=200),
            Row(("InfoMin Aug.",), "infomin", epochs=200),
        ),
        delta="arrow",
        notes=(STAR,),
    ),
)
