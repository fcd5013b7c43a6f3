"""SimCLR (arXiv 2002.05709), Table 7: ImageNet top-5 accuracy of models trained with 1 % and 10 % of the labels.

The supervised baseline saw the labelled fraction only.
"""

from results.sheet import Column
from results.table import Row, Table

R50 = "ResNet-50"

TABLES = (
    Table(
        name="7",
        title="SimCLR Table 7: ImageNet top-5 accuracy of models trained with few labels",
        source="talk: SimCLR Table 7",
        leads=("Method", "Architecture"),
        columns=tuple(
            Column(f"{percent}%", f"imagenet_semi_{percent}", "top5", recipe=f"imagenet_semi_{percent}_simclr")
            for percent in (1, 10)
        ),
        rows=(
            Row(("Supervised baseline", R50), "supervised", "none"),
            Row(("Methods using other label-propagation:", "")),
            Row(("Pseudo-label", R50), "pseudo_label", "none"),
            Row(("VAT+Entropy Min.", R50), "vat_entmin", "none"),
            Row(("UDA (w. RandAug)", R50), "uda", "none"),
            Row(("FixMatch (w. RandAug)", R50), "fixmatch", "none"),
            Row(("S4L (Rot+VAT+En. M.)", "ResNet-50 (4×)"), "s4l", "none"),
            Row(("Methods using representation learning only:", "")),
            Row(("InstDisc", R50), "instdis"),
            Row(("BigBiGAN", "RevNet-50 (4×)"), "bigbigan"),
            Row(("PIRL", R50), "pirl"),
            Row(("CPC v2", "ResNet-161(*)"), "cpc_v2"),
            Row(("SimCLR (ours)", R50), "simclr", epochs=1000, arch=R50),
            Row(("SimCLR (ours)", "ResNet-50 (2×)"), "simclr", epochs=1000, arch="ResNet-50 (2x)"),
            Row(("SimCLR (ours)", "ResNet-50 (4×)"), "simclr", epochs=1000, arch="ResNet-50 (4x)"),
        ),
        notes=(
            "A measured row of imagenet_semi_1_simclr or imagenet_semi_10_simclr is fine-tuned by SimCLR's recipe, one of imagenet_semi_1 "
            "or imagenet_semi_10 by SwAV's (eval_semisup.py).",
        ),
    ),
)
