"""The total batch is the protocol's: an uneven split is refused, and the linear rule changes what it says it changes."""

import pytest

from bench import catalog, cli, journey
from downstream import task as protocols
from downstream.trial import share

TRAINED = [name for name in catalog.names("task") if protocols.scaled(catalog.load("task", name).TASK, 1)[1]]


@pytest.mark.parametrize("processes", [1, 2, 4, 8, 16])
def test_a_divisor_of_the_batch_gets_its_share(processes):
    assert share(16, processes) * processes == 16


@pytest.mark.parametrize("processes", [3, 5, 12, 32])
def test_an_uneven_split_names_the_counts_that_fit(processes):
    with pytest.raises(ValueError, match=rf"batch of 16 evenly \(1, 2, 4, 8, 16\), found {processes}: .*--scale-batch"):
        share(16, processes)


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
