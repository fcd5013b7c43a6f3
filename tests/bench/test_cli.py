"""The command contract: names, JSON, exit codes, one clear sentence for every wrong call, nothing written."""

import io
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from PIL import Image

from bench import catalog, cli, doctor, journey, records
from downstream import weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Runs the console script in this process, in an empty folder; returns (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_machine_that_is_out_of_memory_says_so_in_one_sentence(bench, monkeypatch):
    def doctor():
        raise MemoryError

    monkeypatch.setattr("bench.doctor.lines", doctor)
    assert bench("doctor") == (1, "", "bench: out of memory\n")


@pytest.mark.parametrize("call", [("leaderboard",), ("pretrain", "moco", "--data", "photos", "--scale", "mini")])
def test_a_file_in_the_place_of_a_folder_is_named(bench, tmp_path, call):
    (tmp_path / "photos").mkdir()
    for number in range(64):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "plain").touch()
    code, _, err = bench(*call, "--out", "plain/x")
    assert code == 2
    assert err.splitlines()[-1].endswith("on the way to plain/x, found that plain is a file: name another")


def test_ctrl_c_in_the_demo_is_a_sentence(bench, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.demo.run", run)
    assert bench("demo") == (130, "", "bench: interrupted; the same call goes on\n")


def test_ctrl_c_in_any_command_is_a_sentence(bench, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.doctor.lines", run)
    assert bench("doctor") == (130, "", "bench: interrupted\n")


@pytest.mark.parametrize("module", ["bench.track", "bench.rates"])
def test_a_module_that_is_called_answers_a_wrong_call_as_bench_does(module, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, "nowhere"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of it
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__")
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.startswith("bench: expected ") and "nowhere" in err


@pytest.mark.parametrize("value", ["abc", "", "-1", "nan", "5m"])
@pytest.mark.parametrize("name", [*cli.NUMBERS])
def test_a_variable_that_should_be_a_number_and_is_none_is_named(bench, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    found = f"in ${name}, found {value!r}: unset it or correct it\n"
    code, out, err = bench("list", "tasks")
    assert (code, out) == (2, "") and err.startswith("bench: expected a ") and err.endswith(found)


def test_a_number_in_a_variable_is_taken(bench, monkeypatch):
    for name, (_, least) in cli.NUMBERS.items():
        monkeypatch.setenv(name, str(least))
    for value in ("0.5", "1e9", "inf", ".5"):
        monkeypatch.setenv("BENCH_SAVE_SECONDS", value)
        assert bench("list", "tasks")[0] == 0
    for name, value in (("BENCH_WORKERS", "1.5"), ("WORLD_SIZE", "0")):
        monkeypatch.setenv(name, value)
        code, _, err = bench("list", "tasks")
        assert code == 2 and err.startswith(
            f"bench: expected a whole number, {cli.NUMBERS[name][1]} or more, in ${name}"
        )
        monkeypatch.delenv(name)


def test_a_name_that_is_no_text_is_a_wrong_call_of_its_own(bench, monkeypatch):
    monkeypatch.setattr("bench.doctor.lines", lambda: "\udcff".encode())
    code, _, err = bench("doctor")
    assert code == 2 and "surrogates not allowed" in err and "PYTHONIOENCODING" not in err


def test_an_output_without_the_signs_of_a_table_is_told_apart_from_a_wrong_call(bench, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    code, _, err = bench("table", "moco")
    assert code == 1 and err.endswith(
        "bench: expected an output that takes every sign, found latin-1: set PYTHONIOENCODING=utf-8\n"
    )


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    """A torchvision ResNet-18 with random weights, as published: flat, with fc."""
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    from downstream import synthetic

    root = tmp_path_factory.mktemp("datasets") / "drawn"
    synthetic.synthesize(root, seed=0, voc=4, coco=4, cityscapes=2, imagenet=1)
    return root


@pytest.mark.parametrize("kind", ["methods", "tasks", "sources", "tables"])
def test_list_json_is_a_list_of_named_objects(bench, kind):
    code, out, _ = bench("list", kind, "--json")
    assert code == 0
    rows = json.loads(out)
    assert rows
    assert all(row["name"] for row in rows)


def test_list_names_what_the_main_path_needs(bench):
    def listed(kind):
        return {row["name"] for row in json.loads(bench("list", kind, "--json")[1])}

    assert {"moco", "simsiam", "pixpro", "supervised"} <= listed("methods")
    assert {"voc_c4", "coco_fpn_1x", "coco_c4_1x", "cityscapes_semantic"} <= listed("tasks")
    assert {"moco", "pixpro"} <= listed("tables")
    assert {"bench", "moco", "pixpro"} <= listed("sources")


@pytest.mark.parametrize("task", catalog.names("task"))
@pytest.mark.parametrize("scale", ["paper", "mini"])
def test_show_json_has_the_contract_keys(bench, task, scale):
    code, out, _ = bench("show", task, "--scale", scale, "--json")
    assert code == 0
    shown = json.loads(out)
    assert {"name", "hash", "protocol", "unverified"} <= set(shown)
    assert len(shown["hash"]) == 64
    assert shown["name"] in ((task,) if scale == "paper" else (f"{task}@mini", f"{task}@mini.2"))
    assert ("detectron2" in shown) == (shown["protocol"]["engine"] == "detectron2")


@pytest.mark.parametrize("method", catalog.names("method"))
def test_a_recipe_can_be_shown_with_its_source_at_both_scales(bench, method):
    for scale in ("paper", "mini"):
        code, out, _ = bench("show", method, "--json", "--scale", scale)
        assert code == 0
        shown = json.loads(out)
        assert shown["name"] == method
        assert "arXiv" in shown["cite"] or method == "supervised"
        assert (shown["epochs"], shown["batch_size"]) == (10, 128) or scale == "paper"
        assert shown["lr"] > 0


def test_a_wrong_variant_is_answered_with_the_known_ones(bench):
    code, _, err = bench("show", "moco", "--variant", "v7")
    assert code == 2
    assert "v1 or v2" in err


def test_dry_run_prints_protocol_data_batch_rate_iterations_and_time_and_starts_nothing(bench, datasets, tmp_path):
    code, out, _ = bench("transfer", "--task", "voc_c4", "--dry-run", "--json", "--data", datasets)
    assert code == 0
    plan = json.loads(out)
    assert plan["detectron2"]["SOLVER.BASE_LR"] == 0.02
    assert plan["effective"]["iterations"] == 24000
    assert plan["effective"]["batch"] == 16
    assert plan["data"]["test"] == 4
    assert plan["estimated_seconds"] > 3600
    parameters = 33.1e6  # of an R50-C4, as detectron2 counts them
    assert plan["estimated_bytes"] == pytest.approx(3 * 8 * parameters, rel=0.05)
    assert list(tmp_path.iterdir()) == []


def test_of_many_processes_the_first_alone_prints_the_document(bench, datasets, monkeypatch):
    call = ("transfer", "--task", "voc_c4", "--scale", "mini", "--data", datasets, "--dry-run", "--json")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert bench(*call) == (0, "", "")


def test_a_name_in_any_script_stands_in_a_table_as_it_is():
    for name in ("ResNet\u300050", "a\u00a0b", "co\u00adop", "\U0001f468\u200d\U0001f469"):
        assert cli.printable(name) == name
    assert cli.printable("a\x1b[2J\u202eb\n\u2028") == r"a\x1b[2J\u202eb\n\u2028"


def test_what_gloo_says_of_another_processes_end_is_no_riddle():
    said = RuntimeError(
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:1: Connection reset"
    )
    assert cli.sentence(said).endswith("found that one has ended: its own line says why, if it was not killed")


def test_a_rank_without_its_world_is_refused(bench, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "LATER", 0)
    code, _, err = bench("list", "tasks")
    assert code == 2 and "expected $RANK below $WORLD_SIZE, found 1 and 1" in err


def test_what_befalls_one_of_many_processes_alone_is_said_by_it(bench, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cli, "LATER", 0)
    code, _, err = bench("table", "nonsense")
    assert code == 2 and err.startswith("bench: process 1: ") and err.count("\n") == 1
    monkeypatch.setenv("RANK", "0")
    assert bench("table", "nonsense") == (2, "", err.replace("process 1: ", ""))


def test_dry_run_for_a_person_says_the_same(bench, datasets):
    code, out, _ = bench(
        "transfer", "--task", "cityscapes_semantic", "--scale", "mini", "--dry-run", "--data", datasets
    )
    assert code == 0
    for word in ("cityscapes_semantic@mini.2", "training", "batch 8, ", "time", "disk ", "unverified", "digest"):
        assert word in out


def test_a_plan_of_many_processes_tells_the_share_of_each(bench, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert "processes   8, 2 images of a batch in each\n" in bench("transfer", "--task", "voc_c4", "--dry-run")[1]


def test_processes_share_the_time_of_a_plan_that_the_first_alone_measures(bench, datasets, monkeypatch):
    speeds = iter([1e9, 1e9])
    monkeypatch.setattr("bench.preview.macs_per_second", lambda precision: next(speeds))
    call = ("transfer", "--task", "voc_c4", "--dry-run", "--json", "--data", datasets)
    alone = json.loads(bench(*call)[1])["estimated_seconds"]
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert json.loads(bench(*call)[1])["estimated_seconds"] == pytest.approx(alone / 8)
    monkeypatch.setenv("RANK", "1")
    assert bench(*call) == (0, "", "")


def test_two_protocols_are_told_apart_by_what_differs(bench):
    code, out, _ = bench("show", "coco_fpn", "--against", "coco_fpn_1x_pixpro", "--json")
    assert code == 0 and json.loads(out) == {
        "of": ["coco_fpn_1x", "coco_fpn_1x_pixpro"],
        "differences": {
            "MODEL.ROI_BOX_HEAD.NUM_FC": [2, 1],
            "MODEL.ROI_BOX_HEAD.NUM_CONV": [None, 4],
            "MODEL.ROI_BOX_HEAD.NORM": [None, "SyncBN"],
            "MODEL.ROI_MASK_HEAD.NORM": [None, "SyncBN"],
        },
    }
    found = json.loads(bench("show", "moco", "--variant", "v1", "--against", "moco", "--json")[1])
    assert found["of"] == ["moco v1", "moco v2"] and found["differences"]["temperature"] == [0.07, 0.2]
    code, out, _ = bench("show", "imagenet_linear", "--against", "imagenet_linear_swav")
    assert code == 0 and "  lr: [30.0, 0.3]" in out.splitlines()
    code, _, err = bench("show", "moco", "--against", "voc_c4")
    assert code == 2 and "expected two tasks or two methods, found moco v2 and voc_c4" in err


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("imagenet_linear", ("500500 iterations", "x0.1 at 300300, 400400", "lr: 30.0")),
        ("imagenet_linear schedule cosine", ("500500 iterations, cosine, fp32",)),
        ("imagenet_linear_simsiam", ("28170 iterations", "cosine", "optimiser: lars")),
        ("imagenet_linear_moco_v3", ("112680 iterations", "cosine", "lr: 0.4", "weight_decay: 0.0")),
        ("imagenet_linear_vicreg", ("500500 iterations", "cosine", "lr: 0.02", "weight_decay: 1e-06")),
        ("imagenet_linear_swav", ("500500 iterations, cosine, fp32", "lr: 0.3", "weight_decay: 1e-06")),
        ("imagenet_linear_pycontrast", ("300300 iterations", "x0.2 at 150150, 200200, 250250", "area: [0.2, 1.0]")),
        ("imagenet_linear_simclr", ("28151 iterations, cosine, fp32", "continuous: True", "lr: 1.6", "head_std: 0.0")),
        ("imagenet_semi_1_simclr", ("188 iterations, cosine, fp32", "optimiser: nesterov", "batch: 4096")),
        ("imagenet_knn", ("training    none", "neighbours: [200, 100, 20, 10]")),
        ("imagenet_semi_1", ("1020 iterations", "x0.2 at 612, 816", "head_lr: 5.0")),
        ("voc_c4", ("24000 iterations, x0.1 at 18000, 22000, fp32",)),
        ("voc_c4 SOLVER.MAX_ITER 20000", ("20000 iterations, x0.1 at 18000, 22000 (22000 never: after the last",)),
        ("voc_c4 SOLVER.GAMMA 0.2", ("24000 iterations, x0.2 at 18000, 22000, fp32",)),
        ("voc_c4 SOLVER.LR_SCHEDULER_NAME WarmupCosineLR", ("24000 iterations, WarmupCosineLR, fp32",)),
    ],
)
def test_a_dry_run_tells_the_schedule(bench, task, words, monkeypatch):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    code, out, _ = bench("transfer", "--dry-run", "--task", *task.split())
    assert code == 0
    for word in words:
        assert word in out


def test_an_override_marks_the_plan_as_nonstandard_and_changes_its_hash(bench):
    standard = json.loads(bench("transfer", "--task", "voc_c4", "--dry-run", "--json")[1])
    changed = json.loads(bench("transfer", "--task", "voc_c4", "--dry-run", "--json", "SOLVER.IMS_PER_BATCH", "8")[1])
    assert changed["hash"] != standard["hash"]
    assert changed["effective"]["batch"] == 8
    same = json.loads(bench("transfer", "--task", "voc_c4", "--dry-run", "--json", "SOLVER.IMS_PER_BATCH=16")[1])
    assert same["hash"] == standard["hash"]


@pytest.mark.parametrize(
    ("task", "scale", "published"),
    [("voc_c4", "paper", "fp32"), ("voc_c4", "mini", "bf16"), ("cityscapes_semantic", "paper", "fp32")],
)
def test_the_protocol_has_its_precision_and_another_is_nonstandard(bench, task, scale, published):
    words = ("transfer", "--task", task, "--scale", scale, "--dry-run", "--json")
    standard = json.loads(bench(*words)[1])
    assert standard["effective"]["precision"] == published
    for precision in ("fp32", "bf16"):
        plan = json.loads(bench(*words, "--precision", precision)[1])
        assert plan["effective"]["precision"] == precision
        assert (plan["hash"] == standard["hash"]) == (precision == published)
        resolved = journey.resolve(task, scale, {}, precision)
        assert resolved.nonstandard == (() if precision == published else ("precision",))


def test_a_tilde_that_no_shell_has_read_is_the_home_folder(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "drawn" / "coco").mkdir(parents=True)
    assert (
        json.loads(bench("data", "check", "voc_c4", "--data=~/drawn", "--json")[1])["data"] == f"{tmp_path}/home/drawn"
    )
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/drawn")
    assert json.loads(bench("data", "check", "voc_c4", "--json")[1])["data"] == f"{tmp_path}/home/drawn"
    assert journey.datasets(None) == tmp_path / "home" / "drawn" and doctor.dataset_root().startswith(
        "data: coco under"
    )


WRONG = {
    "a data folder that is missing": (["transfer", "--task", "voc_c4", "--data", "nowhere"], "nowhere"),
    "an unknown task": (["transfer", "--task", "voc_c5"], "Did you mean 'voc_c4'"),
    "an unknown method": (["pretrain", "mocco", "--data", "."], "Did you mean 'moco'"),
    "an unknown table": (["table", "mocoo"], "Did you mean 'moco'"),
    "an unknown scale": (["transfer", "--task", "voc_c4", "--scale", "huge"], "huge"),
    "an unknown family": (["inspect", "{resnet18}", "--from", "mocco"], "moco"),
    "a missing checkpoint": (
        ["transfer", "--task", "voc_c4", "--checkpoint", "none.pth", "--data", "{datasets}"],
        "none.pth",
    ),
    "a key without a value": (["transfer", "--task", "voc_c4", "--dry-run", "SOLVER.BASE_LR"], "SOLVER.BASE_LR"),
    "a key with two values": (
        ["transfer", "--task", "voc_c4", "--dry-run", "SOLVER.BASE_LR=1", "SOLVER.BASE_LR", "2"],
        "1 and 2",
    ),
    "a key and its option": (
        ["transfer", "--task", "imagenet_knn", "--dry-run", "--precision", "fp32", "precision=bf16"],
        "expected one value of precision, found bf16 and --precision fp32",
    ),
    "a field and its option": (
        ["pretrain", "moco", "--data", ".", "--epochs", "3", "epochs=4"],
        "found 4 and --epochs 3",
    ),
    "an unknown key": (["transfer", "--task", "voc_c4", "--dry-run", "SOLVER.BASE_LRR=1"], "SOLVER.BASE_LRR"),
    "an unknown field": (["transfer", "--task", "cityscapes_semantic", "--dry-run", "lrr=1"], "lrr"),
    "an unknown recipe key": (["pretrain", "moco", "--data", "{datasets}/imagenet/train", "epoch=3"], "epoch"),
    "a folder without images": (["pretrain", "moco", "--data", "."], "image"),
    "another architecture": (
        ["transfer", "--task", "voc_c4", "--checkpoint", "{resnet18}", "--arch", "resnet50", "--data", "{datasets}"],
        "resnet50",
    ),
    "a seed that numpy cannot take": (["transfer", "--task", "voc_c4", "--dry-run", "--seed", str(2**31)], "--seed"),
    "a seed of a pretraining below 0": (["pretrain", "moco", "--data", ".", "--seed", "-1"], "--seed"),
    "no seeds": (["sweep", "--tasks", "voc_c4", "--checkpoints", "random", "--seeds", ","], "--seeds like 0,1,2"),
    "a part of the scaling": (["speed", "convert", "--scaling"], "a part or --scaling"),
    "a seed of a sweep too large": (
        ["sweep", "--tasks", "voc_c4", "--checkpoints", "random", "--seeds", f"0,{2**31}"],
        "--seeds like 0,1,2",
    ),
    "a method to show": (
        ["show", "mocco"],
        "expected the name of a task or method, found 'mocco'. Did you mean 'moco'",
    ),
    "a variant of a task": (["show", "voc_c4", "--variant", "v1"], "found 'v1' of the task voc_c4"),
    "a partition without Slurm": (
        ["sweep", "--tasks", "voc_c4", "--partition", "P", "--data", "{datasets}"],
        "expected --executor slurm with --partition",
    ),
    "a seed below zero": (["demo", "--seed", "-1"], "Invalid value for '--seed'"),
    "a file in the place of the run's folder": (
        ["pretrain", "moco", "--data", "{datasets}/imagenet/train", "--out", "{resnet18}"],
        "resnet18.pth",
    ),
    "trials and seed": (["transfer", "--task", "voc_c4", "--trials", "2", "--seed", "1"], "--seed"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_sentence_and_an_exit_code(bench, case, resnet18, datasets, tmp_path):
    words, expected = WRONG[case]
    code, out, err = bench(*(w.format(resnet18=resnet18, datasets=datasets) for w in words))
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_is_missing_is_named(bench, datasets, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(datasets, copy)
    (copy / "VOC2007" / "ImageSets" / "Main" / "test.txt").unlink()
    code, _, err = bench("transfer", "--task", "voc_c4", "--data", copy)
    assert code == 2
    assert "test.txt" in err
    shutil.rmtree(copy / "cityscapes" / "leftImg8bit" / "val")
    code, _, err = bench("transfer", "--task", "cityscapes_semantic", "--data", copy)
    assert code == 2
    assert "val" in err


def test_an_unknown_class_in_an_annotation_is_named(bench, datasets, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(datasets, copy)
    file = sorted((copy / "VOC2007" / "Annotations").glob("*.xml"))[0]
    text = file.read_text()
    start = text.index("<name>") + 6
    file.write_text(text[:start] + "unicorn" + text[text.index("</name>") :])
    code, _, err = bench("transfer", "--task", "voc_c4", "--data", copy)
    assert code == 2
    assert "unicorn" in err
    assert file.name in err


def test_data_check_lists_what_is_wrong_and_exits_1_when_a_run_would_fail(bench, datasets, tmp_path):
    import shutil

    code, out, err = bench("data", "check", "imagenet_linear", "--data", datasets, "--json")
    report = json.loads(out)
    assert code == 0 and report["runs"] and report["reduced"] and "opening imagenet_train 20/20" in err
    copy = tmp_path / "copy"
    shutil.copytree(datasets / "cityscapes", copy / "cityscapes")
    for file in (copy / "cityscapes").rglob("*_labelTrainIds.png"):
        file.unlink()
    code, out, _ = bench("data", "check", "cityscapes_semantic", "--data", copy)
    assert code == 1 and out.count("no labelTrainIds") == 4 and out.endswith("A run would fail.\n")
    code, out, _ = bench("data", "check", "cityscapes_semantic", "--data", copy, "--make-label-train-ids")
    assert code == 0 and "4 labelTrainIds made" in out and "marked `reduced`" in out
    code, out, _ = bench("data", "check", "voc_c4", "--data", tmp_path / "nowhere", "--json")
    assert code == 1 and json.loads(out)["findings"][0]["kind"] == "layout"


def test_a_truncated_checkpoint_is_one_sentence(bench, resnet18, datasets, tmp_path):
    broken = tmp_path / "broken.pth"
    broken.write_bytes(resnet18.read_bytes()[:1_000_000])
    for words in (["inspect", broken], ["transfer", "--task", "voc_c4", "--checkpoint", broken, "--data", datasets]):
        code, out, err = bench(*words)
        assert code == 2
        assert "broken.pth" in err
        assert out == ""
    assert list(tmp_path.iterdir()) == [broken]


def test_a_prefix_that_matches_nothing_is_one_sentence(bench, tmp_path, datasets):
    file = tmp_path / "odd.pth"
    tensors = torchvision.models.resnet18().state_dict()
    torch.save({"state_dict": {f"trunk_of_mine/{name}": t for name, t in tensors.items()}}, file)
    code, _, err = bench("transfer", "--task", "voc_c4", "--checkpoint", file, "--data", datasets)
    assert code == 2
    assert "trunk_of_mine" in err
    assert list(tmp_path.iterdir()) == [file]


def test_inspect_and_convert_round_trip(bench, resnet18, tmp_path):
    code, out, _ = bench("inspect", resnet18, "--json")
    assert code == 0
    report = json.loads(out)
    assert {"family", "evidence", "matched", "dropped", "missing", "unexpected", "traits"} <= set(report)
    assert report["matched"] == 120
    for to, name in (
        ("torchvision", "a.pth"),
        ("torchvision", "a.safetensors"),
        ("detectron2", "a.pkl"),
        ("mmseg", "b.pth"),
    ):
        code, out, err = bench("convert", resnet18, tmp_path / name, "--to", to)
        assert code == 0, err
        assert (tmp_path / name).is_file()
        usual = "[123.675, 116.28, 103.53]"
        assert {
            "torchvision": f"  to be used with RGB pixels from 0 to 255 less {usual}, divided by [58.395, 57.12, 57.375]\n",
            "detectron2": f"  to be used with INPUT.FORMAT RGB, MODEL.PIXEL_MEAN {usual}, MODEL.PIXEL_STD",
            "mmseg": f"  to be used with type='ResNet', depth=18, style='pytorch', mean={usual}, std=",
        }[to] in err


def test_what_else_a_framework_has_to_be_told_of_caffes_weights_is_said():
    traits = {"channel_order": "BGR", "mean": (103.53, 116.28, 123.675), "std": (1.0, 1.0, 1.0), "stem": "7x7"}
    said = {to: weights.usage(traits | {"stride_in_1x1": True}, "resnet50", to) for to in weights.SUFFIXES}
    assert "BGR pixels" in said["torchvision"] and "stages stride in the 1x1 convolution" in said["torchvision"]
    assert said["detectron2"].startswith("INPUT.FORMAT BGR") and said["detectron2"].endswith("STRIDE_IN_1X1 True")
    assert "style='caffe'" in said["mmseg"] and said["mmseg"].endswith("bgr_to_rgb=False")


def test_what_is_changed_of_a_protocol_is_said_before_it_runs(bench, datasets, monkeypatch):
    call = ("transfer", "--task", "cityscapes_semantic", "--scale", "mini", "--data", datasets, "lr=0.1")
    assert "changed     lr: the record would be marked `nonstandard`" in bench(*call, "--dry-run")[1]
    monkeypatch.setattr(journey, "transfer", lambda *_: [])
    assert "Changed: lr: the records are marked `nonstandard`" in bench(*call)[2]


def test_only_tables_with_a_column_of_the_task_are_named_next():
    assert journey.tables("voc_c4@mini") == ["infomin", "moco", "pixpro"] and journey.tables("imagenet_knn") == []
    assert [journey.tables(f"imagenet_{of}") for of in ("semi_1_simclr", "linear_pycontrast")] == [
        ["simclr"],
        ["infomin"],
    ]


def test_convert_spares_its_source(bench, resnet18, tmp_path):
    file, link = tmp_path / "a.pth", tmp_path / "b.pth"
    file.write_bytes(resnet18.read_bytes())
    link.symlink_to(file)
    (tmp_path / "c.pth.json").hardlink_to(file)
    for out, own in (("a.pth", "a.pth"), ("b.pth", "b.pth"), ("c.pth", "c.pth.json")):
        code, _, err = bench("convert", file, tmp_path / out, "--to", "torchvision")
        assert code == 2 and f"found that {tmp_path / own} is the checkpoint's own: name another" in err
    assert file.read_bytes() == resnet18.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth", "b.pth", "c.pth.json"]


@pytest.mark.parametrize(
    "command", ["demo", "pretrain", "inspect", "convert", "transfer", "table", "leaderboard", "list", "show", "doctor"]
)
def test_every_command_has_help_with_an_example(command):
    done = subprocess.run([sys.executable, "-m", "bench", command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "Example" in done.stdout


def test_doctor_finds_this_environment_whole(bench):
    code, out, _ = bench("doctor")
    assert code == 0, out
    assert "MISS" not in out


# --- bench results


@pytest.fixture
def measured(tmp_path):
    """A copy of the packaged records."""
    return shutil.copytree(ROOT / "results" / "measured", tmp_path / "records")


@pytest.mark.parametrize(
    "words",
    [
        ("table", "moco"),
        ("leaderboard",),
        *(("results", word) for word in ("ls", "validate")),
        ("results", "export", "a.csv"),
    ],
)
def test_a_folder_of_records_that_is_named_must_be_there_and_the_packaged_ones_are_called_so(bench, words, tmp_path):
    code, out, err = bench(*words, "--results", "nowhere")
    assert (code, out) == (2, "") and "found none at nowhere" in err and list(tmp_path.iterdir()) == []
    if words[0] != "leaderboard":  # which draws its plots
        code, _, err = bench(*words)
        assert code == 0 and err.startswith("no records in runs/transfer: these are the packaged ones, of ")


def test_results_ls_lists_every_trial_and_filters(bench, measured):
    code, out, _ = bench("results", "ls", "--results", measured, "--json")
    rows = json.loads(out)
    assert code == 0 and {row["file"] for row in rows} == {str(f) for f in measured.glob("*/*/*/*.json")}
    code, out, _ = bench("results", "ls", "--results", measured, "--task", "voc_c4", "--model", "random")
    lines = out.splitlines()
    assert code == 0 and lines and all("/voc_c4/" in line and "/random" in line and "  AP " in line for line in lines)
    assert {line.split()[0] for line in lines} == {str(f) for f in measured.glob("voc_c4/*/*random*/*.json")}


def test_results_ls_knows_the_tasks_that_there_are(bench, measured):
    code, out, err = bench("results", "ls", "--results", measured, "--task", "voc_c5")
    assert (code, out) == (2, "") and "Did you mean 'voc_c4'?" in err
    listed = [bench("results", "ls", "--results", measured, "--task", task)[1] for task in ("coco_fpn", "coco_fpn_1x")]
    assert listed[0] == listed[1] != ""
    assert bench("results", "ls", "--results", measured, "--task", "voc07_svm")[:2] == (
        0,
        "",
    )  # of which there is no trial


def test_results_show_prints_the_record_and_validate_names_every_bad_one(bench, measured, monkeypatch):
    first, second, third, *_ = sorted(measured.glob("*/*/*/*.json"))
    code, out, _ = bench("results", "show", first)
    assert code == 0 and json.loads(out) == json.loads(first.read_text())
    assert bench("results", "validate", "--results", measured)[0] == 0
    monkeypatch.chdir(first.parents[2])
    assert bench("results", "show", first.relative_to(Path.cwd()))[1] == out
    monkeypatch.chdir(second.parent)
    assert bench("results", "show", Path("..", first.parent.name, first.name))[1] == out
    first.write_text("{}")
    second.write_text(second.read_text().replace('"metrics": {', '"metrics": {"AP": 1e9, '))
    third.write_text(third.read_text().replace('"content": {', '"content": {"altered": 1, '))
    code, out, err = bench("results", "validate", "--results", measured)
    assert code == 1 and all(str(file) in out for file in (first, second, third)) and "3 are not" in err
    assert bench("results", "show", first)[0] == 2
    assert bench("results", "show", measured / "none.json")[0] == 2


def test_results_export_writes_the_table_that_its_name_asks_for(bench, measured, tmp_path):
    code, _, _ = bench("results", "export", tmp_path / "t.csv", "--results", measured)
    assert code == 0 and len((tmp_path / "t.csv").read_text().splitlines()) == 1 + len(
        list(measured.glob("*/*/*/*.json"))
    )
    assert bench("results", "export", tmp_path / "t.xls", "--results", measured)[0] == 2


def test_names_and_marks_in_records_command_no_terminal_and_break_no_line(bench, measured):
    from results import record

    for trial in record.load(measured):
        if trial["task"] == "voc_c4":
            record.path(measured, trial).unlink()
            trial["model"]["name"] += "\x1b[2J\x9b\nevil"
            trial["protocol"]["name"] += "\x1b]0;\x07\nevil"
            trial["marks"] += ["\x1b[31m\nevil"]
            record.write(trial, measured)
    for words in (["results", "ls"], *(["table", "moco", "--format", style] for style in ("md", "latex"))):
        code, out, _ = bench(*words, "--results", measured)
        assert code == 0 and "evil" in out
        assert all(line.isprintable() and not line.startswith("evil") for line in out.split("\n"))
    assert all("\x1b" not in bench("table", "moco", "--format", s, "--results", measured)[1] for s in ("csv", "html"))


def test_table_writes_latex_and_html_and_mixes_only_when_asked(bench, measured):
    assert r"\toprule" in bench("table", "moco", "--format", "latex", "--results", measured)[1]
    assert bench("table", "moco", "--format", "html", "--results", measured)[1].startswith("<!doctype html>")
    assert "‡1" not in bench("table", "moco", "--results", measured)[1]
    assert "‡1" in bench("table", "moco", "--results", measured, "--allow-mixed")[1]


def test_report_writes_a_card_of_what_the_file_is(bench, resnet18, measured, tmp_path):
    code, out, err = bench("report", resnet18, "--results", measured, "--out", tmp_path / "card")
    assert code == 0, err
    assert out.split() == [str(tmp_path / "card/card.md"), str(tmp_path / "card/card.html")]
    text = (tmp_path / "card/card.md").read_text()
    assert (
        "torchvision" in text and "resnet18" in text and "forward proof" in text and "No trial of these weights" in text
    )
    assert bench("report", "nowhere", "--out", tmp_path / "none")[0] == 2 and not (tmp_path / "none").exists()


def test_leaderboard_writes_the_page_and_names_every_file(bench, measured, tmp_path):
    code, out, _ = bench("leaderboard", "--results", measured, "--out", tmp_path / "board")
    assert code == 0 and {"index.html", "leaderboard.csv", "leaderboard.md"} < {
        line.rpartition("/")[2] for line in out.split()
    }


def test_serve_answers_this_machine_and_a_browser_in_its_terminal_alone_and_ends_when_interrupted(
    measured, tmp_path, monkeypatch
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    seen = tmp_path / "seen.html"
    browser = (
        f"{sys.executable} -c 'import sys, urllib.request as web; web.urlretrieve(sys.argv[1], sys.argv[2])' %s {seen}"
    )
    command = [
        sys.executable,
        "-m",
        "bench",
        "leaderboard",
        "--results",
        measured,
        "--out",
        tmp_path / "board",
        "--serve",
    ]
    environment = os.environ | {"BROWSER": browser, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    running = subprocess.Popen(
        [*map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs, and so their children, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        address = next(line.split()[0] for line in running.stderr if line.startswith("http://"))
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=30) as answer:
            page = answer.read()
        until = time.monotonic() + 30
        while not (seen.exists() and seen.read_bytes() == page):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert page.startswith(b"<!doctype html>") and running.returncode == 0 and err.strip().endswith("ended")


def test_a_port_that_is_taken_is_named_with_the_way_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"expected port {port} free, found: .* in use; take another --port"):
            records.serve(tmp_path, port, print)


def test_the_next_command_that_is_named_can_be_pasted(bench, monkeypatch):
    from pretrain import loop

    plan = SimpleNamespace(model={"name": "m", "arch": "a"}, found={"train": 1, "test": 1}, reduced=False, proof={})
    monkeypatch.setattr(journey, "datasets", lambda data: data)
    monkeypatch.setattr(journey, "plan", lambda *_: plan)
    monkeypatch.setattr(journey, "transfer", lambda *_: [])
    monkeypatch.setattr(loop, "run", lambda *_, **__: Path("my runs/backbone.pth"))
    told = bench("transfer", "--task", "voc_c4", "--out", "my runs")[2].splitlines()[-1]
    tables = ", ".join(f"bench table {name} --results 'my runs'" for name in ("infomin", "moco", "pixpro"))
    assert told == f"Next: {tables}, bench leaderboard --results 'my runs'"
    told = bench("pretrain", "moco", "--data", "photos")[2].splitlines()[-1]
    assert " --checkpoint 'my runs/backbone.pth' --scale paper " in told
