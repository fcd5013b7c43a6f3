"""PixPro (arXiv 2011.10043), its summary of four transfers: AP first, no differences printed.

The COCO FPN columns are PixPro's own protocol (4 convolutions and 1 fully connected layer in the box head, all
normalised), not MoCo's.
"""

from results.sheet import Column
from results.table import Row, Table

GROUPS = (
    ("VOC", "voc_c4", ("AP", "AP50", "AP75")),
    ("COCO FPN", "coco_fpn_1x_pixpro", ("APbb", "APbb50", "APbb75")),
    ("COCO C4", "coco_c4_1x", ("APbb", "APbb50", "APbb75")),
)

TABLES = (
    Table(
        name="summary",
        title="PixPro: PASCAL VOC (R50-C4), COCO (R50-FPN), COCO (R50-C4), Cityscapes (R50)",
        source="talk: PixPro Results table",
        leads=("Method", "#. Epoch"),
        columns=(
            *(
                Column(f"{name} {printed}", task, metric)
                for name, task, metrics in GROUPS
                for printed, metric in zip(("AP" if name == "VOC" else "mAP", "AP50", "AP75"), metrics, strict=True)
            ),
            Column("Cityscapes mIoU", "cityscapes_semantic", "mIoU"),
        ),
        rows=(
            Row(("scratch", "-"), "random_init", "none"),
            Row(("supervised", "100"), "supervised", epochs=100),
            Row(("MoCo [18]", "200"), "moco_v1", epochs=200),
            Row(("SimCLR [8]", "1000"), "simclr", epochs=1000),
            Row(("MoCo v2 [9]", "800"), "moco_v2", epochs=800),
            Row(("InfoMin [30]", "200"), "infomin", epochs=200),
            Row(("InfoMin [30]", "800"), "infomin", epochs=800),
            Row(("PixPro (ours)", "100"), "pixpro", epochs=100),
            Row(("PixPro (ours)", "400"), "pixpro", epochs=400),
        ),
        notes=("PixPro's COCO FPN figures are of weights trained with the instance branch (zdaxie/PixPro README).",),
    ),
)
