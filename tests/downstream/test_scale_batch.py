"""The total batch is the protocol's: an uneven split is refused, and the linear rule changes what it says it changes."""

from datetime import timedelta

import pytest
import torch

from bench import catalog, cli, journey
from downstream import task as protocols
from downstream.trial import in_parts, place, share

TRAINED = [name for name in catalog.names("task") if protocols.scaled(catalog.load("task", name).TASK, 1)[1]]


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
def test_a_divisor_of_the_batch_gets_its_share(processes):
    assert share(16, processes) * processes == 16


@pytest.mark.parametrize("processes", [3, 5, 12, 32])
def test_an_uneven_split_names_the_counts_that_fit(processes):
    with pytest.raises(ValueError, match=rf"batch of 16 evenly \(1, 2, 4, 8, 16\), found {processes}: .*--scale-batch"):
        share(16, processes)


def test_more_processes_than_gpus_are_refused_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"found 2 for process 3: torchrun --nproc-per-node 2$"):
        place()


def test_a_process_with_a_gpu_waits_half_an_hour_for_the_others(monkeypatch):
    begun = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: begun.append(device.index))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, timeout: begun.append((name, timeout)))
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    found = place()
    assert (found.rank, found.world, found.device) == (3, 4, torch.device("cuda", 1))
    assert begun == [1, ("nccl", timedelta(minutes=30))]


def numbers(task):
    """Batch, learning rate, and images seen by the end, by the first step of the schedule and by the end of warm-up."""
    total, steps = protocols.iterations(task, 1_281_167)
    if isinstance(task, protocols.Detection):
        full = protocols.DEFAULTS | dict(task.settings)
        batch, lr, warm = (full[f"SOLVER.{key}"] for key in ("IMS_PER_BATCH", "BASE_LR", "WARMUP_ITERS"))
    else:
        batch, lr, warm = task.batch, task.lr, getattr(task, "warmup", 0)
    return batch, lr, batch * total, batch * (steps[0] if steps else 0), batch * warm


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("processes", [1, 3, 8, 32])
def test_the_linear_rule_keeps_the_images_of_a_process_and_those_of_the_training(name, processes):
    task = catalog.load("task", name).TASK
    scaled, said = protocols.scaled(task, processes)
    (batch, lr, *images), (new, faster, *seen) = numbers(task), numbers(scaled)
    assert new * 8 == batch * processes
    assert faster == pytest.approx(lr * processes / 8)
    assert seen == pytest.approx(images, rel=0.02)  # whole iterations
    assert share(new, processes) == batch // 8
    if processes == 8:
        assert scaled == task
        assert said == []


@pytest.mark.parametrize("name", TRAINED)
def test_every_number_that_changes_is_said_and_nonstandard(name):
    task = catalog.load("task", name).TASK
    scaled, said = protocols.scaled(task, 4)
    old, new = protocols.protocol(task), protocols.protocol(scaled)
    old, new = ({**content, **content.get("settings", {})} for content in (old, new))
    changed = {key for key in new if key != "settings" and new[key] != old.get(key)}
    assert changed == set(scaled.nonstandard)
    assert changed == {line.split()[0] for line in said}
    assert protocols.digest(scaled) != protocols.digest(task)


def test_a_classifiers_own_learning_rate_is_scaled_as_the_backbones():
    scaled, said = protocols.scaled(catalog.load("task", "imagenet_semi_10").TASK, 4)
    assert (scaled.batch, scaled.lr, scaled.head_lr) == (128, 0.005, 0.1)
    assert said == ["batch 256 -> 128", "lr 0.01 -> 0.005", "head_lr 0.2 -> 0.1"]
    assert "head_lr" in scaled.nonstandard


def test_what_was_nonstandard_stays_so():
    task = protocols.overridden(catalog.load("task", "voc_c4").TASK, {"MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "64"})
    assert "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE" in protocols.scaled(task, 2)[0].nonstandard


def test_nothing_is_scaled_where_nothing_is_trained():
    task = catalog.load("task", "imagenet_knn").TASK
    assert protocols.scaled(task, 1) == (task, [])


@pytest.mark.parametrize("name", ["voc_c4", "cityscapes_semantic", "imagenet_linear"])
def test_every_engine_refuses_an_uneven_split(name, monkeypatch, tmp_path):
    task = journey.resolve(name, "mini", {})
    engine = journey.engine(task)
    if name == "voc_c4":
        from detectron2.utils import comm

        monkeypatch.setattr(comm, "get_world_size", lambda: 3)
        monkeypatch.setattr(engine.datasets, "records", lambda *_: [{"annotations": [{"iscrowd": 0}]}])
    else:
        three = engine.Place(0, 3, engine.torch.device("cpu"))
        monkeypatch.setattr(engine, "place", lambda: three)
    with pytest.raises(ValueError, match=r"share the protocol's batch of \d+ evenly \(1, 2, .*\), found 3"):
        engine.run(task, None, protocols.TRAITS, "resnet18", tmp_path, tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_transfer_says_every_number_that_the_linear_rule_changed(monkeypatch, capsys):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    words = ["bench", "transfer", "--task", "cityscapes_semantic", "--scale-batch", "--dry-run"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    out, err = capsys.readouterr()
    assert "batch 8, learning rate 0.005, 180000 iterations" in out
    for line in ("batch 16 -> 8", "lr 0.01 -> 0.005", "iterations 90000 -> 180000", "nonstandard"):
        assert line in err


@pytest.mark.parametrize("name", TRAINED)
def test_accumulating_changes_the_protocol_and_marks_it_and_one_part_changes_nothing(name):
    task = catalog.load("task", name).TASK
    assert protocols.accumulated(task, 1) == task
    parts = protocols.accumulated(task, 4)
    assert parts.nonstandard == ("accumulate",)
    old, new = protocols.protocol(task), protocols.protocol(parts)
    assert {key for key in new if new[key] != old.get(key)} == {"accumulate"} == new.keys() - old.keys()
    assert protocols.digest(parts) != protocols.digest(task)


@pytest.mark.parametrize("name", ["imagenet_knn", "voc07_svm"])
def test_nothing_is_accumulated_where_nothing_is_trained(name):
    with pytest.raises(ValueError, match="expected a task that trains a network"):
        protocols.accumulated(catalog.load("task", name).TASK, 2)


def test_every_sample_is_in_one_part():
    for count in range(1, 9):
        for parts in range(1, 5):
            split = in_parts(list(range(count)), parts)
            assert [i for part in split for i in part] == list(range(count))
            assert len(split) == min(count, parts)
            assert max(map(len, split)) - min(map(len, split)) <= 1


def test_without_batch_norm_the_gradient_of_parts_is_that_of_the_batch(tmp_path, monkeypatch):
    from downstream import classification, synthetic

    synthetic.synthesize(tmp_path, seed=0, voc=0, coco=0, cityscapes=0, imagenet=2)
    changes = {"epochs": "1", "steps": "[1]", "batch": "15", "view": "32", "resize": "36", "precision": "fp32"}
    task = journey.resolve(
        "imagenet_linear", "mini", changes
    )  # batches of 15, 15 and 10; the frozen backbone's norms do not see them
    heads, looked = [], []
    monkeypatch.setattr(classification.Watch, "look", lambda self, loss, *_: looked[-1].append(loss))
    for parts in (1, 4):
        looked.append([])
        out = tmp_path / str(parts)
        whole = protocols.accumulated(task, parts)
        result = classification.run(whole, None, protocols.TRAITS, "resnet18", tmp_path, out, 0)
        assert result["effective"].get("accumulate", 1) == parts
        assert result["effective"]["batch"] == 15
        heads.append(classification.checkpoint.load(out, {})["model"]["weight"])
    assert heads[0].abs().max() > 1
    assert (heads[0] - heads[1]).abs().max() < 1e-4 * heads[0].abs().max()
    assert sum(looked[1][:4]) / 4 == pytest.approx(looked[0][0], rel=0.1)  # an error names losses, not parts of them


def test_transfer_says_that_accumulation_does_not_fix_batch_norm(monkeypatch, capsys):
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    words = ["bench", "transfer", "--task", "cityscapes_semantic", "--accumulate", "4", "--dry-run"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    out, err = capsys.readouterr()
    assert "batch 16, learning rate 0.01, 90000 iterations" in out
    assert "4 parts of a batch are summed, nonstandard. This does not fix batch norm" in err
