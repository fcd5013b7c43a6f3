"""A model card shows this model's measured tasks beside the right neighbours, and nothing that stands in a name becomes markup."""

import re

import pytest

from results import card, published


def world(trial, **more):
    given = {"scale": "paper", "arch": "resnet50", "train": 16551, "test": 4952, **more}
    return [trial("voc_c4", "mine", {"AP": 57.1, "AP50": 82.0, "AP75": 63.0}, seed, **given) for seed in (0, 1)] + [
        trial("voc_c4", "other", {"AP": 50.0, "AP50": 80.0, "AP75": 60.0}, **given)
    ]


def made(trials, **facts):
    return card.card("mine", [*facts.items()], trials[0]["model"]["sha256"], trials, ["bench inspect mine.pth"])


def test_at_the_papers_protocol_the_nearest_published_figures_and_the_supervised_one_stand_beside(trial):
    ((_, heads, rows),) = made(world(trial)).tables
    assert heads == ["model", "AP", "AP50", "AP75", "n", "source"]
    place = [i for i, (own, row) in enumerate(rows) if own]
    rows = [row for _, row in rows]
    assert len(place) == 1 and rows[place[0]][0].startswith("mine") and rows[place[0]][1:] == [
        "57.10 ± 0.00",
        "82.00 ± 0.00",
        "63.00 ± 0.00",
        "2",
        "measured",
    ]  # fmt: skip
    known = sorted(
        float(f.value) for f in published.figures() if (f.task, f.metric, f.backbone) == ("voc_c4", "AP", "resnet50")
    )
    above = [float(row[1]) for row in rows[: place[0]]]
    assert above == [v for v in known if v > 57.1][:3][::-1]
    assert [float(r[1]) for r in rows[place[0] + 1 :]][:3] == [v for v in known if v <= 57.1][-3:][::-1]
    assert any(row[0].startswith("supervised") for row in rows) and any(row[0].startswith("other") for row in rows)


def test_at_another_scale_only_measured_models_of_the_same_conditions_stand_beside(trial):
    ((_, _, rows),) = made(world(trial, scale="mini")).tables
    assert [row[-1] for _, row in rows] == ["measured", "measured"]


@pytest.mark.parametrize(
    ("task", "metric", "images", "sources"),
    [
        ("imagenet_linear", "top1", (1281167, 50000), {"facebookresearch/moco README"}),
        ("imagenet_linear_simsiam", "top1", (1281167, 50000), {"facebookresearch/simsiam README"}),
        ("imagenet_linear_swav", "top1", (1281167, 50000), {"facebookresearch/swav README"}),
        ("imagenet_linear_moco_v3", "top1", (1281167, 50000), {"facebookresearch/moco-v3 README"}),
        ("imagenet_linear_vicreg", "top1", (1281167, 50000), {"facebookresearch/vicreg README"}),
        ("imagenet_linear_pycontrast", "top1", (1281167, 50000), {"HobbitLong/PyContrast README"}),
        ("imagenet_linear_simclr", "top1", (1281167, 50000), set()),
        ("imagenet_semi_1", "top1", (12811, 50000), set()),
        ("imagenet_semi_1_simclr", "top5", (12811, 50000), {"talk: SimCLR Table 7"}),
    ],
)
def test_figures_of_another_recipe_stand_in_no_card(trial, task, metric, images, sources):
    conditions = {"scale": "paper", "arch": "resnet50", "train": images[0], "test": images[1]}
    ((_, _, rows),) = made([trial(task, "mine", {metric: 62.0}, **conditions)]).tables
    beside = {row[-1] for _, row in rows} - {"measured"}
    assert sources == beside


def test_figures_of_the_best_epoch_stand_beside_the_measured_best_epochs(trial):
    conditions = {"scale": "paper", "arch": "resnet50", "train": 1281167, "test": 50000}
    metrics = {"top1": 60.0, "top5": 82.0, "top1_best": 60.5, "top5_best": 82.5}
    ((_, heads, rows),) = made([trial("imagenet_linear", "mine", metrics, **conditions)]).tables
    cells = [(own, *(row[heads.index(metric)] for metric in ("top1", "top1_best"))) for own, row in rows]
    assert (False, "–", "60.6") in cells and cells.index((False, "–", "60.6")) < cells.index((True, "60.00", "60.50"))


def test_the_svm_on_another_layer_stands_in_no_card(trial):
    conditions = {"scale": "paper", "arch": "resnet50", "train": 5011, "test": 4952}
    ((_, _, rows),) = made([trial("voc07_svm", "mine", {"mAP": 66.0}, **conditions)]).tables
    below = [row[1] for _, row in rows if row[-1] != "measured"]
    of = [f for f in published.figures() if (f.task, f.backbone) == ("voc07_svm", "resnet50")]
    assert below and all(
        any(str(f.value) == v and re.search("best layer feat(ure)?5", f.note) for f in of) for v in below
    )


def test_the_card_lists_every_record_and_the_commands(trial):
    text = card.markdown(made(world(trial)))
    assert text.count("Record: voc_c4/") == 2 and "```sh\nbench inspect mine.pth\n```" in text
    assert "bench transfer measures" in card.markdown(card.card("x", [], "0" * 64, world(trial), []))


def test_a_name_is_neither_markup_nor_takes_it_the_place_of_this_models(trial):
    given = {"scale": "paper", "arch": "resnet50", "train": 16551, "test": 4952}
    trials = [
        trial("voc_c4", "<b>|", {"AP": 57.1}, **given),
        trial("voc_c4", "**<script>", {"AP": 90.0, "<i>": 1.0}, **given),
    ]
    one = made(trials)
    text = card.markdown(one)
    assert not re.findall(r"(?<!\\)<", text)
    assert re.search(r"\| \*\*\\<b>\\\|.*\| +\*\*57\.10\*\* \|", text) and r"| \*\*\<script> " in text
    page = card.html(one)
    assert page.count('<tr class="own">') == 1 and re.search(r'class="own"><td>&lt;b&gt;\|', page)
    assert "<td>**&lt;script&gt; " in page


def test_facts_are_text_in_markdown_and_html(trial):
    one = made(world(trial), licence="<script>alert(1)</script> | `x`")
    assert "<script>" not in card.html(one) and "\\<script>" in card.markdown(one)
    files = card.files(one)
    assert {"card.md", "card.html"} < set(files) and all(
        name in card.markdown(one) for name in files if name.startswith("plots/")
    )
    assert not re.findall(r"(?:src|href)=.(?!data:)", card.html(one))
