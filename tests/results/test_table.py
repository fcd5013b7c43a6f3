"""Each table, rendered from published figures alone, is the printed one: literally here, and against the talk's text."""

import csv
import dataclasses
import io
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from results import latex, record, table
from results import sheet as sheets

TALK = Path(table.__file__).parents[2] / "shared" / "talk.txt"

# As the talk prints them (the papers' own numbers); a minus is U+2212.
PRINTED = {
    ("moco", "2b"): """
        random init. | 60.2 | 33.8 | 33.1
        super. IN-1M | 81.3 | 53.5 | 58.8
        MoCo IN-1M | 81.5 (+0.2) | 55.9 (+2.4) | 62.6 (+3.8)
        MoCo IG-1B | 82.2 (+0.9) | 57.2 (+3.7) | 63.7 (+4.9)""",
    ("moco", "5a"): """
        random init. | 31.0 | 49.5 | 33.2 | 28.5 | 46.8 | 30.4
        super. IN-1M | 38.9 | 59.6 | 42.7 | 35.4 | 56.5 | 38.1
        MoCo IN-1M | 38.5 (−0.4) | 58.9 (−0.7) | 42.0 (−0.7) | 35.1 (−0.3) | 55.9 (−0.6) | 37.7 (−0.4)
        MoCo IG-1B | 38.9 (0.0) | 59.4 (−0.2) | 42.3 (−0.4) | 35.4 (0.0) | 56.5 (0.0) | 37.9 (−0.2)""",
    ("moco", "5c"): """
        random init. | 26.4 | 44.0 | 27.8 | 29.3 | 46.9 | 30.8
        super. IN-1M | 38.2 | 58.2 | 41.2 | 33.3 | 54.7 | 35.2
        MoCo IN-1M | 38.5 (+0.3) | 58.3 (+0.1) | 41.6 (+0.4) | 33.6 (+0.3) | 54.8 (+0.1) | 35.6 (+0.4)
        MoCo IG-1B | 39.1 (+0.9) | 58.7 (+0.5) | 42.2 (+1.0) | 34.1 (+0.8) | 55.4 (+0.7) | 36.4 (+1.2)""",
    ("moco", "6-keypoint"): """
        random init. | 65.9 | 86.5 | 71.7
        super. IN-1M | 65.8 | 86.9 | 71.9
        MoCo IN-1M | 66.8 (+1.0) | 87.4 (+0.5) | 72.5 (+0.6)
        MoCo IG-1B | 66.9 (+1.1) | 87.8 (+0.9) | 73.0 (+1.1)""",
    ("moco", "6-densepose"): """
        random init. | 39.4 | 78.5 | 35.1
        super. IN-1M | 48.3 | 85.6 | 50.6
        MoCo IN-1M | 50.1 (+1.8) | 86.8 (+1.2) | 53.9 (+3.3)
        MoCo IG-1B | 50.6 (+2.3) | 87.0 (+1.4) | 54.3 (+3.7)""",
    ("moco", "6-lvis"): """
        random init. | 22.5 | 34.8 | 23.8
        super. IN-1M † | 24.4 | 37.8 | 25.8
        MoCo IN-1M | 24.1 (−0.3) | 37.4 (−0.4) | 25.5 (−0.3)
        MoCo IG-1B | 24.9 (+0.5) | 38.2 (+0.4) | 26.4 (+0.6)""",
    ("moco", "6-segmentation"): """
        random init. | 25.4 | 51.1 | 65.3 | 39.5
        super. IN-1M | 32.9 | 59.6 | 74.6 | 74.4
        MoCo IN-1M | 32.3 (−0.6) | 59.3 (−0.3) | 75.3 (+0.7) | 72.5 (−1.9)
        MoCo IG-1B | 32.9 (0.0) | 60.3 (+0.7) | 75.5 (+0.9) | 73.6 (−0.8)""",
    ("pixpro", "summary"): """
        scratch | - | 33.8 | 60.2 | 33.1 | 32.8 | 51.0 | 35.3 | 26.4 | 44.0 | 27.8 | 65.3
        supervised | 100 | 53.5 | 81.3 | 58.8 | 39.7 | 59.5 | 43.3 | 38.2 | 58.2 | 41.2 | 74.6
        MoCo [18] | 200 | 55.9 | 81.5 | 62.6 | 39.4 | 59.1 | 43.0 | 38.5 | 58.3 | 41.6 | 75.3
        SimCLR [8] | 1000 | 56.3 | 81.9 | 62.5 | 39.8 | 59.5 | 43.6 | 38.4 | 58.3 | 41.6 | 75.8
        MoCo v2 [9] | 800 | 57.6 | 82.7 | 64.4 | 40.4 | 60.1 | 44.3 | 39.5 | 59.0 | 42.6 | 76.2
        InfoMin [30] | 200 | 57.6 | 82.7 | 64.6 | 40.6 | 60.6 | 44.6 | 39.0 | 58.5 | 42.0 | 75.6
        InfoMin [30] | 800 | 57.5 | 82.5 | 64.0 | 40.4 | 60.4 | 44.3 | 38.8 | 58.2 | 41.7 | 75.6
        PixPro (ours) | 100 | 58.8 | 83.0 | 66.5 | 41.3 | 61.3 | 45.4 | 39.6 | 59.2 | 42.8 | 76.8
        PixPro (ours) | 400 | 60.2 | 83.8 | 67.7 | 41.4 | 61.6 | 45.4 | 40.5 | 59.8 | 44.0 | 77.2""",
    ("infomin", "voc"): """
        random init.* | 60.2 | 33.8 | 33.1 | -
        supervised* | 81.3 | 53.5 | 58.8 | 76.1
        InstDis | 80.9 | 55.2 | 61.2 | 59.5
        PIRL | 81.0 | 55.5 | 61.3 | 61.7
        MoCo* | 81.5 | 55.9 | 62.6 | 60.6
        InfoMin Aug. (ours) | 82.7 | 57.6 | 64.6 | 70.1""",
    ("infomin", "coco"): """
        random init* | 26.4 | 44.0 | 27.8
        supervised* | 38.2 | 58.2 | 41.2
        MoCo* | 38.5(↑0.3) | 58.3(↑0.1) | 41.6(↑0.4)
        InfoMin Aug. | 39.0(↑0.8) | 58.5(↑0.3) | 42.0(↑0.8)""",
    ("simclr", "7"): """
        Supervised baseline | ResNet-50 | 48.4 | 80.4
        Methods using other label-propagation: | | |
        Pseudo-label | ResNet-50 | 51.6 | 82.4
        VAT+Entropy Min. | ResNet-50 | 47.0 | 83.4
        UDA (w. RandAug) | ResNet-50 | - | 88.5
        FixMatch (w. RandAug) | ResNet-50 | - | 89.1
        S4L (Rot+VAT+En. M.) | ResNet-50 (4×) | - | 91.2
        Methods using representation learning only: | | |
        InstDisc | ResNet-50 | 39.2 | 77.4
        BigBiGAN | RevNet-50 (4×) | 55.2 | 78.8
        PIRL | ResNet-50 | 57.2 | 83.8
        CPC v2 | ResNet-161(*) | 77.9 | 91.2
        SimCLR (ours) | ResNet-50 | 75.5 | 87.8
        SimCLR (ours) | ResNet-50 (2×) | 83.0 | 91.2
        SimCLR (ours) | ResNet-50 (4×) | 85.8 | 92.6""",
}
HEADS = {
    ("moco", "2b"): ["AP50", "AP", "AP75"],
    ("moco", "5a"): ["APbb", "APbb50", "APbb75", "APmk", "APmk50", "APmk75"],
    ("pixpro", "summary"): [
        *("VOC AP", "VOC AP50", "VOC AP75", "COCO FPN mAP", "COCO FPN AP50", "COCO FPN AP75"),
        *("COCO C4 mAP", "COCO C4 AP50", "COCO C4 AP75", "Cityscapes mIoU"),
    ],
    ("infomin", "voc"): ["AP50", "AP", "AP75", "ImageNet Acc(%)"],
}
EVERY = [(name, one.name) for name in table.formats() for one in table.tables(name) if name != "imagenet"]


def read(markdown):
    """The tables of a Markdown text as lists of rows of cells, heads first, without emphasis."""
    found, inside = [], False
    for line in markdown.splitlines():
        if line.startswith("|"):
            cells = [re.sub(r"\*\*(.*)\*\*", r"\1", c.strip()) for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            cells[0] = re.sub(r"^\*(.*)\*$", r"\1", cells[0])
            if not inside:
                found.append([])
            if not re.fullmatch(r"[-: ]+", "".join(cells)) or not inside:
                found[-1].append(cells)
        inside = line.startswith("|")
    return found


def rendered(name, which):
    position = [one.name for one in table.tables(name)].index(which)
    return read(table.render(name))[position]


def lines(text):
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def test_every_table_is_tested_here():
    assert set(EVERY) == set(PRINTED)


@pytest.mark.parametrize("change", [{"method": "nnclr"}, {"epochs": 7}, {"data": "IN-22K"}, {"source": "elsewhere"}])
def test_a_row_without_any_figure_is_refused_and_not_printed_empty(change):
    one = table.tables("moco")[0]
    rows = (*one.rows, dataclasses.replace(one.rows[-2], **change))
    with pytest.raises(
        ValueError, match=r"^expected figures of .* for the row MoCo IN-1M of 2b, found none in results/published"
    ):
        table.sheets(dataclasses.replace(one, rows=rows))


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_the_published_table_is_the_printed_one_cell_by_cell(name, which):
    assert rendered(name, which)[1:] == lines(PRINTED[name, which])


@pytest.mark.parametrize(("name", "which"), HEADS)
def test_moco_prints_ap50_first_on_voc_and_pixpro_ap(name, which):
    assert rendered(name, which)[0][-len(HEADS[name, which]) :] == HEADS[name, which]


def bare(rows):
    """Without white space and empty cells."""
    return [[text for cell in row if (text := re.sub(r"\s", "", cell))] for row in rows]


def talk_tables():
    """The talk's tables of results, without their heads: rows of cells, tags removed."""
    if not TALK.exists():
        pytest.skip("the talk's text is not beside this checkout")
    found, rows = [], []
    for line in [*TALK.read_text(encoding="utf-8").splitlines(), ""]:
        if "\t" in line or (rows and line.strip()):
            rows.append([re.sub(r"<[^>]+>", "", cell) for cell in line.split("\t")])
        elif rows:
            body = [row for row in bare(rows) if re.match(r"(-|\d+\.\d+.*)$", row[-1]) or row[0].endswith(":")]
            found.append(body)
            rows = []
    return found


def test_the_talk_prints_these_tables_and_no_others():
    talk = talk_tables()
    ours = [bare(rendered(name, which)[1:]) for name, which in EVERY]
    assert sorted(talk) == sorted(ours)
    assert len(talk) == 11


@pytest.mark.parametrize(("name", "which"), EVERY)
def test_the_best_of_every_column_is_bold_and_so_are_ties(name, which):
    position = [one.name for one in table.tables(name)].index(which)
    sheet = [s for one in table.tables(name) for s in table.sheets(one)][position]
    text = sheets.markdown([sheet])
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    for column in range(len(sheet.leads), len(rows[0])):
        cells = [row[column].strip() for row in rows if re.search(r"\d", row[column])]
        values = [float(re.match(r"[*]*([\d.]+)", cell)[1]) for cell in cells]
        assert [cell.startswith("**") for cell in cells] == [value == max(values) for value in values]


def test_both_values_of_pixpro_100_epochs_are_told():
    assert "39.6" in table.render("pixpro")
    assert re.search(
        r"PixPro \(ours\) 100, elsewhere:.*COCO C4 mAP 40\.0 in zdaxie/PixPro README", table.render("pixpro")
    )
    assert re.search(r"MoCo v2 .* 800, elsewhere: VOC AP 57\.4, VOC AP50 82\.5, VOC AP75 64\.0", table.render("pixpro"))


def test_the_daggers_meaning_is_told():
    assert re.search(r"† fine-tuned with frozen batch norm", table.render("moco"))
    assert re.search(r"elsewhere: APmk 23\.2.*tuned BN", table.render("moco"))


def test_imagenets_rows_are_the_authors_own_figures():
    rows = {(r[0], r[1]): r[2] for r in read(table.render("imagenet"))[0][1:]}
    expected = {
        ("BYOL", "1000"): "74.4",
        ("SwAV", "800"): "75.3",
        ("MoCo v1", "200"): "60.6",
        ("MoCo v2", "800"): "71.1",
    }
    assert expected.items() <= rows.items() and rows["Supervised", "-"] == "76.1"
    assert "-" not in rows.values()
    lines = list(csv.DictReader(io.StringIO(table.render("imagenet", (), "csv"))))
    assert {r["source"] for r in lines if r["model"] == "BYOL"} == {"deepmind-research/byol README"}


def test_every_table_with_linear_classification_says_which_epoch_is_published_and_which_measured():
    having = [
        t for name in table.formats() for t in table.tables(name) if "imagenet_linear" in {c.task for c in t.columns}
    ]
    assert len(having) == 2
    for one in having:
        text = sheets.markdown(table.sheets(one))
        assert "MoCo's published figures are the best epoch's" in text and "measured rows are the last's" in text


def test_the_imagenet_table_says_that_its_rows_differ_in_recipe():
    text = table.render("imagenet")
    assert re.search(r"^- How the linear classifier is trained differs .*SimSiam: LARS", text, flags=re.M)


# --- measured rows


@pytest.fixture
def world(trial):
    """Two trials of four models on VOC and Cityscapes at mini scale; each trial is 1 apart from the other."""
    found = []
    for name, ap in (("random", 1.0), ("supervised", 5.0), ("moco_v2", 6.5), ("pixpro", 8.0)):
        for seed in (0, 1):
            metrics = {"AP": ap + seed, "AP50": 2 * ap + seed, "AP75": ap / 2 + seed}
            found.append(trial("voc_c4", name, metrics, seed))
            found.append(trial("cityscapes_semantic", name, {"mIoU": 20 + ap + seed}, seed))
    return found


def own(name, records):
    """The measured tables of a format, and the whole text."""
    text = table.render(name, records)
    blocks = [block for block in re.split(r"^(?=###)", text, flags=re.M) if block.startswith("#### Measured")]
    return [read(block)[0] for block in blocks], text


def test_a_measured_cell_is_mean_deviation_and_difference_from_supervised(world):
    tables, text = own("moco", world)
    rows = {row[0].split()[0]: row[1:] for row in tables[0]}
    assert rows["pre-train"] == ["AP50", "AP", "AP75", "n"]
    # 6.5 and 7.5: mean 7.0, sample standard deviation 0.7071; supervised: 5.0 and 6.0, mean 5.5
    assert rows["moco_v2"] == ["13.50 ± 0.71 (+3.00)", "7.00 ± 0.71 (+1.50)", "3.75 ± 0.71 (+0.75)", "2"]
    assert rows["supervised"] == ["10.50 ± 0.71", "5.50 ± 0.71", "3.00 ± 0.71", "2"]
    assert rows["random"] == ["2.50 ± 0.71", "1.50 ± 0.71", "1.00 ± 0.71", "2"]
    assert "**8.50 ± 0.71 (+3.00)**" in text
    assert "difference from supervised (10 epochs)" in text


def test_a_measured_row_names_model_epochs_and_weights(world):
    sha = next(r["model"]["sha256"] for r in world if r["model"]["name"] == "pixpro")
    tables, _ = own("moco", world)
    assert f"pixpro (10 epochs) {sha[:8]}" in [row[0] for row in tables[0]]


def test_without_a_supervised_row_the_difference_is_from_random_and_says_so(world):
    tables, text = own("moco", [r for r in world if r["model"]["name"] != "supervised"])
    assert "7.00 ± 0.71 (+5.50)" in [row[2] for row in tables[0]]
    assert "difference from random" in text


def test_mini_rows_never_stand_beside_published_ones(world):
    assert read(table.render("moco", world))[0] == rendered("moco", "2b")
    assert read(table.render("pixpro", world))[0] == rendered("pixpro", "summary")


def test_the_heading_tells_protocol_hash_data_and_marks(world, trial):
    changed = trial("voc_c4", "pixpro", {"AP": 9.0}, protocol="b", nonstandard=["SOLVER.MAX_ITER"])
    _, text = own("moco", [*world, changed])
    plain = world[0]
    digest = plain["data"]["digest"][:8]
    assert (
        f"`voc_c4@mini`, protocol {plain['protocol']['hash'][:12]}, data {digest} "
        "(400 training and 200 test images), resnet18, mini, reduced." in text
    )
    assert f"protocol {changed['protocol']['hash'][:12]}" in text
    assert "nonstandard: SOLVER.MAX_ITER" in text


@pytest.mark.parametrize("other", [{"protocol": "b"}, {"data": "drawn"}, {"arch": "resnet50"}])
def test_rows_of_another_protocol_data_or_backbone_never_share_a_table(world, trial, other):
    stranger = trial("voc_c4", "simsiam", {"AP": 7.0, "AP50": 9.0, "AP75": 3.0}, **other)
    for name in ("moco", "pixpro", "infomin"):
        for rows in own(name, [*world, stranger])[0]:
            names = {row[0].split()[0] for row in rows[1:]}
            assert names == {"simsiam"} or "simsiam" not in names
    assert any(row[0].startswith("simsiam") for rows in own("moco", [*world, stranger])[0] for row in rows)


def test_every_task_of_a_joined_table_has_one_protocol_and_data(world, trial):
    """The same models on two sets of data: two tables, and the numbers of each stay together."""
    twin = [{**r, "data": {**r["data"], "digest": "f" * 64}} for r in world]
    twin = [{**r, "metrics": {k: v + 40 for k, v in r["metrics"].items()}} for r in twin]
    tables, _ = own("pixpro", [*world, *twin])
    assert len(tables) == 2
    for rows in tables:
        assert [len(row) for row in rows] == [7] * 5
        column = [float(re.match(r"[\d.]+", row[2])[0]) for row in rows[1:]]
        assert all(value < 40 for value in column) or all(value >= 40 for value in column)


def test_models_are_joined_over_tasks_and_what_is_missing_is_a_dash(world):
    kept = [r for r in world if (r["task"], r["model"]["name"]) != ("cityscapes_semantic", "moco_v2")]
    rows = {row[0].split()[0]: row for row in own("pixpro", kept)[0][0]}
    assert rows["Method"] == ["Method", "#. Epoch", "VOC AP", "VOC AP50", "VOC AP75", "Cityscapes mIoU", "n"]
    assert rows["moco_v2"][5] == "–"
    assert rows["moco_v2"][6] == "2"
    voc = ["8.50 ± 0.71 (+3.00)", "16.50 ± 0.71 (+6.00)", "4.50 ± 0.71 (+1.50)"]
    assert rows["pixpro"][1:] == ["10", *voc, "28.50 ± 0.71 (+3.00)", "2"]


def test_a_model_that_a_task_adds_brings_its_other_tasks_along(trial):
    voc = [trial("voc_c4", name, {"AP": 1.0}) for name in ("random", "supervised", "moco_v2")]
    street = [trial("cityscapes_semantic", name, {"mIoU": 2.0}) for name in ("moco_v2", "pixpro")]
    (rows,), _ = own("pixpro", [*voc, *street, trial("coco_c4_1x", "pixpro", {"APbb": 3.0})])
    assert [cell.partition(" ")[0] for cell in rows[-1][2:-1]] == ["–", "–", "–", "3.00", "–", "–", "2.00"]


def test_a_task_with_another_number_of_trials_is_named_in_brackets(world):
    kept = [r for r in world if (r["task"], r["model"]["name"], r["seed"]) != ("cityscapes_semantic", "moco_v2", 1)]
    rows = {row[0].split()[0]: row for row in own("pixpro", kept)[0][0]}
    assert (rows["moco_v2"][6], rows["pixpro"][6]) == ("2 (cityscapes_semantic 1)", "2")


def test_a_task_of_another_box_head_does_not_enter_the_fpn_column(trial):
    ours = trial("coco_fpn_1x", "pixpro", {"APbb": 7.0})
    assert own("pixpro", [ours])[0] == []
    assert len(own("moco", [ours])[0]) == 1


def paper(trial, name, **more):
    given = {"scale": "paper", "arch": "resnet50", "train": 16551, "test": 4952, **more}
    metrics = {"AP": 57.0, "AP50": 82.4, "AP75": 63.6}
    return [
        trial("voc_c4", name, {k: v + d for k, v in metrics.items()}, seed=i, **given) for i, d in ((0, -0.1), (1, 0.1))
    ]


def test_paper_scale_rows_stand_beside_the_published_ones(trial):
    rows = read(table.render("moco", paper(trial, "moco_v2", epochs=200)))[0]
    assert rows[0] == ["pre-train", "AP50", "AP", "AP75", "n", "source"]
    assert rows[3] == ["MoCo IN-1M", "81.5 (+0.2)", "55.9 (+2.4)", "62.6 (+3.8)", "", "published"]
    assert rows[5][1:] == ["82.4 ± 0.1 (+1.1)", "57.0 ± 0.1 (+3.5)", "63.6 ± 0.1 (+4.8)", "2", "measured"]
    assert len(own("moco", paper(trial, "moco_v2"))[0]) == 0


def test_without_a_measured_supervised_row_the_difference_is_from_the_published_one_and_says_so(trial):
    assert "difference from the published supervised row" in table.render("moco", paper(trial, "moco_v2"))
    both = [*paper(trial, "moco_v2"), *paper(trial, "supervised")]
    text = table.render("moco", both)
    assert "difference from the published" not in text
    assert "- Measured rows, in brackets: difference from supervised" in text  # published ones have the published row's
    assert "57.0 ± 0.1 (0.0≈)" in text.replace("*", "")


@pytest.mark.parametrize(
    "more",
    [{"nonstandard": ["SOLVER.MAX_ITER"]}, {"train": 400}, {"test": 800}, {"arch": "resnet18"}, {"scale": "mini"}],
)
def test_what_is_not_quite_the_papers_protocol_stands_apart(trial, more):
    records = paper(trial, "moco_v2", **more)
    assert read(table.render("moco", records))[0] == rendered("moco", "2b")
    assert len(own("moco", records)[0]) == 1


def test_two_protocols_that_claim_to_be_the_papers_both_stand_apart(trial):
    records = [*paper(trial, "moco_v2"), *paper(trial, "pixpro", protocol="b")]
    tables, text = own("moco", records)
    assert read(text)[0] == rendered("moco", "2b")
    assert len(tables) == 2
    assert "2 measured groups (protocol, data) claim to be the paper's voc_c4: all stand apart." in text


def test_the_same_trial_twice_is_an_error(trial):
    one = trial("voc_c4", "moco_v2", {"AP": 1.0})
    with pytest.raises(ValueError, match="seed 0 of moco_v2 on voc_c4@mini, found two"):
        table.render("moco", [one, one])


def test_one_trial_has_no_deviation(trial):
    rows = own("moco", [trial("voc_c4", "moco_v2", {"AP": 1.0, "AP50": 2.0, "AP75": 0.5})])[0][0]
    assert rows[1][1:] == ["2.00", "1.00", "0.50", "1"]


def test_a_metric_that_is_not_in_the_record_is_a_dash(trial):
    rows = own("moco", [trial("voc_c4", "moco_v2", {"AP": 1.0})])[0][0]
    assert rows[1][1:] == ["–", "1.00", "–", "1"]


def test_what_a_checkpoint_says_about_itself_may_be_anything(trial):
    one = trial("voc_c4", "net", {"AP": 1.0}, method="supervised")
    one["model"] |= {"variant": 3, "epochs": "200 or so", "pretrain_data": {"folder": "train", "images": 2500}}
    two = trial("voc_c4", "other", {"AP": 2.0})
    record.check(one)
    assert own("moco", [one, two])[0][0][1][0].startswith("net (supervised, 3, 200 or so epochs) ")
    line = next(r for r in csv.DictReader(io.StringIO(table.render("moco", [one], "csv"))) if r["model"] == "net")
    assert line["pretrain_data"] == "folder train, images 2500"


def test_a_hostile_name_does_not_break_the_table(trial):
    records = [trial("voc_c4", "a|b*c`<img>\n| x", {"AP": 1.0})]
    rows = own("moco", records)[0][0]
    assert [len(row) for row in rows] == [5, 5]
    assert rows[1][0].startswith(r"a\|b\*c\`\<img> \| x")


def test_no_text_of_a_record_becomes_markup_in_headings_and_introductions(trial):
    one = trial("voc_c4", "moco_v2", {"AP": 1.0}, arch="<b>[a](b)", nonstandard=["<i>\n\n# heading", "`<u>`"])
    one["protocol"]["name"] = "p` <img src=x> `q"
    one["data"]["digest"] = "<s>*"
    for mixed in (False, True):
        text = table.render("moco", [one], mixed=mixed)
        bare = re.sub(r"(?<![`\\])`[^`]+`(?!`)", "", text)  # what stands in code is no markup
        assert not re.search(r"(?<!\\)[<\[]", bare) and "\n# heading" not in text
    assert "\n`p` \\<img src=x> `q`, protocol " in table.render("moco", [one])


def test_the_order_of_the_records_does_not_matter(world):
    assert table.render("pixpro", world) == table.render("pixpro", world[::-1])


def test_a_difference_that_was_not_tested_is_told(trial):
    values = {"supervised": (50.0, 50.2), "once": (60.0,), "twice": (55.0, 55.1)}
    records = [trial("voc_c4", n, {"AP": v}, seed) for n, vs in values.items() for seed, v in enumerate(vs)]
    note = "A difference of or from a single trial is not tested, and bears no mark."
    assert note in own("moco", records)[1]
    assert note not in own("moco", [record for record in records if record["model"]["name"] != "once"])[1]
    whole = {"scale": "paper", "arch": "resnet50", "train": 118287, "test": 5000}
    text = table.render("moco", [trial("coco_fpn_1x", "mine", {"APbb": 39.0}, seed, **whole) for seed in range(5)])
    assert note not in text and "A difference from a published row of unknown spread is not tested, and bears" in text


def test_a_difference_that_may_be_none_is_marked_and_the_number_of_comparisons_told(trial):
    values = {"supervised": (50.0, 50.2, 50.4), "near": (50.1, 50.1, 50.6), "far": (55.0, 55.2, 55.5)}
    records = [trial("voc_c4", n, {"AP": v}, seed) for n, vs in values.items() for seed, v in enumerate(vs)]
    tables, text = own("moco", records)
    rows = {row[0].split()[0]: row[2] for row in tables[0][1:]}
    assert rows["near"].endswith("(+0.07≈)") and rows["far"].endswith("(+5.03)")
    assert "Holm's correction over 2 comparisons; trials" in text and "compared in pairs" in text
    pair = own("moco", [record for record in records if record["model"]["name"] != "far"])[1]
    assert "no difference at the 5 % level, of one comparison; trials" in pair
    far = next(r for r in csv.DictReader(io.StringIO(table.render("moco", records, "csv"))) if r["model"] == "far")
    from scipy import stats

    assert float(far["voc_c4.AP.p"]) == pytest.approx(
        stats.ttest_rel(values["far"], values["supervised"]).pvalue, rel=1e-4
    )


def test_a_difference_within_noise_is_marked_in_tables_with_arrows_too(trial):
    whole = {"scale": "paper", "arch": "resnet50", "train": 118287, "test": 5000}
    values = {"supervised": (38.0, 38.2, 38.4), "near": (38.1, 38.1, 38.6), "far": (43.0, 43.2, 43.5)}
    records = [
        trial("coco_c4_1x", n, {"APbb": v}, seed, **whole) for n, vs in values.items() for seed, v in enumerate(vs)
    ]
    rows = {row[0].split()[0]: row[1] for row in read(table.render("infomin", records))[1]}
    assert rows["near"].endswith("(↑0.1≈)") and rows["far"].endswith("(↑5.0)")


def test_what_a_tables_own_recipe_measured_stands_in_it_and_another_recipes_in_a_table_of_its_own(trial):
    whole = {"scale": "paper", "arch": "resnet50", "test": 50000, "protocol": "p"}
    own, other = (
        [
            trial(f"imagenet_semi_{percent}{recipe}", "mine", {"top5": value}, train=train, **whole)
            for percent, train in ((1, 12811), (10, 128116))
        ]
        for recipe, value in (("_simclr", 77.7), ("", 66.6))
    )
    for records in (own, other):  # where one recipe alone was measured, it stands in
        ((*_, printed),) = read(table.render("simclr", records))
        assert (
            "mine" in printed[0]
            and printed[2] == printed[3]
            and printed[2].startswith(f"{records[0]['metrics']['top5']}")
        )
    text = table.render("simclr", [*own, *other])
    (*_, printed), (_, apart) = read(text)
    assert (printed[2][:4], apart[2][:4]) == ("77.7", "66.6")
    assert "Measured: `imagenet_semi_1_simclr`" in text and "Measured: imagenet_semi_1, imagenet_semi_10" in text
    small = [trial(f"imagenet_semi_{n}{recipe}", "mine", {"top5": 9.0}) for recipe in ("_simclr", "") for n in (1, 10)]
    apart = table.render("simclr", small)
    assert "Measured: imagenet_semi_1_simclr@mini, imagenet_semi_10_simclr@mini" in apart
    assert "Measured: imagenet_semi_1@mini, imagenet_semi_10@mini" in apart
    line = next(r for r in csv.DictReader(io.StringIO(table.render("simclr", own, "csv"))) if r["model"] == "mine")
    assert line["data"].split("#")[0] == "imagenet_semi_1_simclr"


def test_for_one_trial_or_a_published_row_mocos_spread_stands_in_and_only_at_the_papers_protocol(trial):
    one, near = (
        paper(trial, "moco_v2")[:1],
        [trial("voc_c4", "x", {"AP": 53.8}, scale="paper", arch="resnet50", train=16551, test=4952)],
    )
    text = table.render("moco", one)
    told = (
        "Where there is one trial or a published row, a published spread stands in for its own "
        "(facebookresearch/moco detection/README.md)."
    )
    assert told in text
    assert "(+3.4)" in text.replace("*", "") and "(+0.3≈)" in table.render("moco", near)
    assert told in table.render("moco", paper(trial, "moco_v2"))
    assert told in table.render("moco", [*paper(trial, "moco_v2"), *paper(trial, "supervised")[:1]])
    assert "published spread" not in table.render("moco", [*paper(trial, "moco_v2"), *paper(trial, "supervised")])
    assert "published spread" not in table.render("moco", [trial("voc_c4", "moco_v2", {"AP": 1.0})])


def test_rows_of_another_protocol_are_named_below_and_enter_only_when_asked_with_a_footnote(trial, world):
    assert "Measured under other conditions, in tables of their own: voc_c4@mini" in table.render("moco", world)
    mixed = table.render("moco", world, mixed=True)
    rows = read(mixed)[0]
    assert [row[0].split()[-1] for row in rows[5:]] == ["‡1"] * 4 and rows[5][1:] == [
        "2.50 ± 0.71",
        "1.50 ± 0.71",
        "1.00 ± 0.71",
        "2",
        "measured",
    ]
    assert re.search(r"‡1 not to be compared with the other rows: .*voc_c4@mini", mixed)
    assert "**82.2 (+0.9)**" in mixed and not own("moco", ())[0] and "#### Measured" not in mixed


# --- writers


def test_columns_are_aligned_for_a_terminal(world):
    for name in table.formats():
        for block in table.render(name, world).split("\n\n"):
            if block.startswith("|"):
                assert len({len(line) for line in block.splitlines()}) == 1
                assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in block.splitlines()}) == 1


def test_csv_has_one_line_a_model_with_plain_numbers(world):
    got = list(csv.DictReader(io.StringIO(table.render("pixpro", world, "csv"))))
    assert [r["model"] for r in got if r["kind"] == "measured"] == ["random", "supervised", "moco_v2", "pixpro"]
    assert len([r for r in got if r["kind"] == "published"]) == 9
    moco = next(r for r in got if r["model"] == "moco_v2")
    assert (float(moco["voc_c4.AP.mean"]), float(moco["voc_c4.AP.delta"]), moco["voc_c4.AP.n"]) == (7.0, 1.5, "2")
    assert float(moco["voc_c4.AP.std"]) == pytest.approx(0.707107, abs=1e-6)
    half = 12.7062 * 0.5  # of two trials: t of one degree of freedom
    assert [float(moco[f"voc_c4.AP.{end}"]) for end in ("low", "high")] == pytest.approx([7 - half, 7 + half], abs=1e-4)
    apart = [float(moco[f"voc_c4.AP.{end}"]) for end in ("delta_low", "delta", "delta_high")]
    assert apart == [1.5, 1.5, 1.5]  # of every seed
    assert moco["source"].count(".json") == 4
    assert moco["coco_c4_1x.APbb.mean"] == ""
    printed = next(r for r in got if r["method"] == "pixpro" and r["epochs"] == "400")
    assert (printed["voc_c4.AP.mean"], printed["source"]) == ("60.2", "talk: PixPro Results table")


def test_csv_numbers_of_a_published_difference_are_plain():
    got = list(csv.DictReader(io.StringIO(table.render("moco", (), "csv"))))
    row = next(r for r in got if (r["table"], r["model"]) == ("6-segmentation", "MoCo IN-1M"))
    assert (float(row["voc_semantic.mIoU.mean"]), float(row["voc_semantic.mIoU.delta"])) == (72.5, -1.9)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"imagenet, infomin, moco, pixpro, simclr.*found 'mocco'"):
        table.render("mocco")
    with pytest.raises(ValueError, match=r"md, csv.*found 'xls'"):
        table.render("moco", (), "xls")
    with pytest.raises(ValueError, match=r"found '\.\./record'"):
        table.render("../record")


def test_tables_need_neither_torch_nor_pandas_nor_another_package():
    code = (
        "import sys; from results import leaderboard, table; [table.render(n) for n in table.formats()]; "
        "leaderboard.markdown(); heavy = {'torch', 'pandas', 'numpy', 'scipy', 'bench', 'pretrain', 'downstream'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# --- LaTeX and HTML


def compiled(text, folder):
    """What pdflatex makes of the tables, as text on its terminal; skips where there is none."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    head = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\n"
    (folder / "x.tex").write_text(head + text + "\\end{document}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def test_every_table_compiles_in_latex_whatever_a_model_is_called(world, trial, tmp_path):
    names = ('a_b%$#&{}~^\\\\<>|"` é ß 模型 \U0001f600 \\input{/etc/passwd}', "[2cm] x", "*star")
    hostile = [trial("voc_c4", name, {"AP": 1.0}) for name in names]
    text = "\n\\clearpage\n".join(table.render(name, [*world, *hostile], "latex") for name in table.formats())
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") >= 12
    assert not re.search(r"^[\[*]", text, flags=re.M) and "\n{[}2cm] x " in text and "\n{*}star " in text
    compiled(text, tmp_path)


def test_no_name_becomes_markup_in_markdown():
    names = ("__a_b__", "_a b_", "~~a~~", "&lt;&#60;", "*a*", "moco_v2_200ep", "Cars & trucks")
    told = [r"\_\_a_b\_\_", r"\_a b\_", r"\~\~a\~\~", r"\&lt;\&#60;", r"\*a\*", "moco_v2_200ep", "Cars & trucks"]
    assert [sheets.escaped(name) for name in names] == [sheets.sentence(name) for name in names] == told


def test_a_sign_that_latex_cannot_print_becomes_a_question_mark():
    assert latex.escaped("\x1b[31mr\u00e9d\x07\u540d") == "?{[}31mred??"


def test_latex_has_the_papers_cells_and_booktabs_rules():
    text = table.render("moco", (), "latex")
    assert r"MoCo IN-1M & 38.5 ($-$0.4) & 58.9 ($-$0.7)" in text
    assert r"\textbf{82.2 (+0.9)}" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(table.tables("moco"))


def test_html_has_every_cell_and_no_name_becomes_markup(world, trial):
    hostile = trial("voc_c4", "<script>alert(1)</script>", {"AP": 1.0})
    text = table.render("moco", [*world, hostile], "html")
    assert "<script" not in text and "&lt;script&gt;alert" in text and "http" not in text.replace("http-equiv", "")
    blocks = re.findall(r"<table>.*?</table>", text, flags=re.S)
    cells = [
        [
            [unescape(re.sub(r"<[^>]+>", "", c)) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)]
            for row in block.split("<tr")[1:]
        ]
        for block in blocks
    ]
    assert cells[0] == rendered("moco", "2b")
    assert len(cells) == len(table.tables("moco")) + 2
    assert any(row[0].startswith("<script>alert(1)</script>") for one in cells for row in one)
