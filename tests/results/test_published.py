import collections
import csv
from decimal import Decimal
from pathlib import Path

import pytest

from results import published

COLLECTED = Path(published.__file__).parents[2] / "shared" / "published_results.csv"


def values(**wanted):
    return {str(f.value) for f in published.figures() if all(getattr(f, k) == v for k, v in wanted.items())}


def test_every_collected_line_was_imported_unchanged():
    if not COLLECTED.exists():
        pytest.skip("the collection is not beside this checkout; only the imported files are")
    with COLLECTED.open(encoding="utf-8", newline="") as file:
        collected = collections.Counter(tuple(line.values()) for line in csv.DictReader(file))
    imported: collections.Counter = collections.Counter()
    for path in published.FOLDER.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            imported.update(tuple(line.values()) for line in csv.DictReader(file))
    assert imported == collected


def test_there_are_as_many_figures_as_readme_says_each_with_a_source():
    assert len(published.figures()) == 1585
    readme = Path(published.__file__).parents[1] / "README.md"
    assert f" {len(published.figures()):,} figures by citation" in readme.read_text(encoding="utf-8")
    assert all(f.source for f in published.figures())


def test_a_value_keeps_the_digits_that_were_printed():
    assert values(source="talk: MoCo Results, Table 6 densepose", method="moco_v1", data="IG-1B", metric="APdp50") == {
        "87.0"
    }


def test_the_two_coco_fpn_protocols_are_two_tasks():
    assert values(task="coco_fpn_1x", method="supervised", metric="APbb") == {"38.9"}
    assert values(task="coco_fpn_1x_pixpro", method="supervised", metric="APbb") == {"39.7"}
    assert not values(task="coco_fpn")


def test_other_frameworks_configurations_do_not_pass_for_ours():
    sources = {f.source for f in published.figures() if f.task in ("voc_c4", "coco_fpn_1x_pixpro", "voc_semantic")}
    assert not [source for source in sources if source.startswith("mmselfsup")]
    assert {f.source for f in published.figures() if f.task == "voc_semantic"} == {
        "talk: MoCo Results, Table 6 Cityscapes/VOC seg"
    }


@pytest.mark.parametrize(
    ("wanted", "protocol"),
    [
        ({"source": "facebookresearch/moco README", "task": "imagenet_linear"}, "imagenet_linear"),
        ({"source": "facebookresearch/simsiam README", "task": "imagenet_linear"}, "imagenet_linear_simsiam"),
        ({"source": "facebookresearch/swav README", "task": "imagenet_linear"}, "imagenet_linear_swav"),
        ({"source": "facebookresearch/barlowtwins README", "task": "imagenet_linear"}, "imagenet_linear_swav"),
        ({"source": "facebookresearch/moco-v3 README", "task": "imagenet_linear"}, "imagenet_linear_moco_v3"),
        ({"source": "facebookresearch/vicreg README", "task": "imagenet_linear"}, "imagenet_linear_vicreg"),
        ({"source": "HobbitLong/PyContrast README", "task": "imagenet_linear"}, "imagenet_linear_pycontrast"),
        ({"source": "talk: SimCLR Table 7", "method": "simclr", "task": "imagenet_semi_1"}, "imagenet_semi_1_simclr"),
        ({"source": "talk: SimCLR Table 7", "method": "pirl", "task": "imagenet_semi_10"}, None),
        ({"source": "VISSL MODEL_ZOO", "task": "imagenet_linear"}, None),
        ({"source": "OpenSelfSup MODEL_ZOO", "task": "imagenet_semi_1"}, None),
        ({"note": "best layer feat5", "task": "voc07_svm"}, "voc07_svm"),
        ({"note": "best layer feat4", "task": "voc07_svm"}, None),
        ({"source": "talk: MoCo Results, Table 2(b)"}, "voc_c4"),
    ],
)
def test_a_figure_says_which_of_our_protocols_it_was_made_under(wanted, protocol):
    found = [f for f in published.figures() if all(getattr(f, k) == v for k, v in wanted.items())]
    assert {f.protocol for f in found} == {protocol}


def test_this_projects_task_names_are_used():
    tasks = {f.task for f in published.figures()}
    ours = "voc_c4 coco_c4_1x coco_c4_2x coco_fpn_1x coco_fpn_1x_pixpro coco_keypoint_2x coco_densepose lvis_v05_1x"
    ours += " lvis_v05_2x cityscapes_instance cityscapes_semantic voc_semantic imagenet_linear imagenet_knn"
    assert {*ours.split(), "imagenet_semi_1", "imagenet_semi_10"} <= tasks
    assert not {"voc_sem", "cityscapes_sem", "cityscapes_inst", "coco_c4", "coco_fpn", "lvis_v05"} & tasks


def test_two_sources_that_disagree_both_stand():
    assert values(task="coco_c4_1x", method="pixpro", epochs=100, metric="APbb") == {"39.6", "40.0"}
    wanted = {"task": "voc_c4", "method": "moco_v2", "epochs": 800, "metric": "AP"}
    assert {"57.6", "57.4"} <= values(**wanted)
    one = next(
        f for f in published.figures() if f.value == Decimal("57.6") and (f.task, f.method) == ("voc_c4", "moco_v2")
    )
    assert Decimal("57.4") in {f.value for f in published.disagreeing(one)}


def test_rounding_is_no_disagreement():
    """OpenSelfSup prints 55.95 where MoCo prints 55.9."""
    one = next(
        f for f in published.figures() if (f.task, f.method, f.metric) == ("voc_c4", "moco_v1", "AP") and f.epochs
    )
    assert one.value == Decimal("55.9")
    assert published.disagreeing(one) == []


@pytest.mark.parametrize("arch", ["R50-C4", "R50-FPN", "R50", "RN50", "ResNet-50", "ResNet-50 1X", "ResNet50 (1x)"])
def test_the_ways_to_write_resnet50_are_one_backbone(arch):
    assert next(f for f in published.figures() if f.arch == arch).backbone == "resnet50"


@pytest.mark.parametrize("arch", ["R101-C4", "ResNet-50 (2x)", "RN50-w2", "ResNet-50*", "ResNet-50 2X SK"])
def test_other_backbones_are_not_resnet50(arch):
    assert next(f for f in published.figures() if f.arch == arch).backbone == arch


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("m,IN-1K,,R50,t,AP,nan,s,", "percentage"),
        ("m,IN-1K,,R50,t,AP,101,s,", "percentage"),
        ("m,IN-1K,,R50,t,AP,x,s,", "line 2"),
        ("m,IN-1K,,R50,t,AP,50.0,,", "source"),
        ("m,IN-1K,many,R50,t,AP,50.0,s,", "many"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, told):
    (tmp_path / "bad.csv").write_text(",".join(published.COLUMNS) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=rf"bad\.csv, line 2: .*{told}|bad\.csv, {told}"):
        published.figures(tmp_path)


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"bad\.csv to begin with method"):
        published.figures(tmp_path)
