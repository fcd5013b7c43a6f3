"""ImageNet linear classification, ResNet-50: every method's own figure, each from its authors' document.

Not a printed table of one paper: the rows are the authors' READMEs, in the order of their figures. How the linear classifier is
trained differs between them, which the table says below itself. A measured row is MoCo's protocol, `imagenet_linear`, last epoch.
"""

from results.sheet import Column
from results.table import BEST_EPOCH, Row, Table

MOCO, SWAV, PIC, PYCONTRAST, VISSL = (
    "facebookresearch/moco README",
    "facebookresearch/swav README",
    "bl0/PIC README",
    "HobbitLong/PyContrast README",
    "VISSL projects/PIRL/README",
)

RECIPES = (
    "How the linear classifier is trained differs between the published rows (MoCo: learning rate 30 for 100 epochs; SimSiam: "
    "LARS; SwAV: 0.3 with cosine): differences below half a point mean little. A measured row is MoCo's protocol, imagenet_linear."
)


def row(label: str, method: str, epochs: int, source: str, note: str = "") -> Row:
    return Row((label, str(epochs)), method, epochs=epochs, source=source, note=note)


TABLES = (
    Table(
        "linear",
        "ImageNet linear classification, ResNet-50",
        "the methods' own documents",
        ("Method", "#. Epoch"),
        (Column("top-1", "imagenet_linear", "top1", also="imagenet_supervised"),),
        (
            Row(("Supervised", "-"), "supervised", source="talk: InfoMin VOC table"),
            row("InstDisc", "instdis", 200, "zhirongw/lemniscate README"),
            row("MoCo v1", "moco_v1", 200, MOCO, "released"),
            row("PIRL", "pirl", 200, VISSL, "Linear head"),
            row("MoCo v2", "moco_v2", 200, MOCO, "released"),
            row("SimSiam", "simsiam", 100, "facebookresearch/simsiam README", "batch 512"),
            row("PIC", "pic", 200, PIC),
            row("SimCLR", "simclr", 1000, "google-research/simclr README"),
            row("CLSA, single crop", "clsa", 200, "maple-research-lab/CLSA README", "Single crop"),
            row("InfoMin Aug.", "infomin", 200, PYCONTRAST),
            row("PIC", "pic", 1600, PIC),
            row("MoCo v2", "moco_v2", 800, MOCO),
            row("SimCLR v2", "simclr_v2", 800, "google-research/simclr README"),
            row("InfoMin Aug.", "infomin", 800, PYCONTRAST),
            row("VICReg", "vicreg", 1000, "facebookresearch/vicreg README"),
            row("Barlow Twins", "barlow_twins", 1000, "facebookresearch/barlowtwins README"),
            row("SwAV", "swav", 200, SWAV, "batch 4096"),
            row("BYOL", "byol", 1000, "deepmind-research/byol README"),
            row("MoCo v3", "moco_v3", 1000, "facebookresearch/moco-v3 README"),
            row("DeepCluster-v2", "deepcluster_v2", 800, SWAV),
            row("SwAV", "swav", 800, SWAV),
            row("CLSA, multi-crop", "clsa", 800, "maple-research-lab/CLSA README", "Multi crop"),
        ),
        notes=(RECIPES, BEST_EPOCH),
    ),
)
