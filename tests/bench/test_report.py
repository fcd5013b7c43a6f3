"""A model card's commands make what its trials are, or are none."""

import shlex
from types import SimpleNamespace

import pytest

from bench import catalog, cli, journey, preview, report, sources
from downstream import task as protocols
from downstream import weights
from results import record


def trial(task, scale, seed, nonstandard=(), **protocol):
    """What `bench report` reads of a record."""
    digest = protocols.digest(journey.resolve(task, scale, {}))
    offered = {"name": f"{task}@mini.2", "hash": digest, "content": {}}
    return {
        "task": task,
        "scale": scale,
        "seed": seed,
        "nonstandard": list(nonstandard),
        "protocol": offered | protocol,
        "model": {"sha256": "a" * 64, "name": "weights"},
    }


def commands(*trials, family=None, arch=None):
    """Without the first two, which every card has."""
    model = {"sha256": "a" * 64, "name": "weights"}
    return report._commands("my  weights.pth", model, trials, family, arch)[2:]


def test_a_trial_of_a_protocol_that_is_offered_has_its_command():
    made = commands(*(trial("cityscapes_semantic", "mini", seed) for seed in (0, 1)), trial("voc_c4", "paper", 0))
    line = "bench transfer --task {} --checkpoint 'my  weights.pth' --scale {} --seed {}"
    assert made == [line.format("cityscapes_semantic", "mini", seed) for seed in (0, 1)] + [
        line.format("voc_c4", "paper", 0)
    ]


def test_random_weights_are_not_offered_where_they_have_no_card(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint file or address, or the name of a run"):
        report.write("nope", None, tmp_path, None, None)


def test_what_a_card_was_told_of_the_file_its_commands_are_told_too():
    (line,) = commands(trial("voc_c4", "paper", 0), family="moco", arch="resnet50")
    assert line == (
        "bench transfer --task voc_c4 --checkpoint 'my  weights.pth' --from moco --arch resnet50 --scale paper --seed 0"
    )


def test_a_trial_whose_row_has_another_name_is_made_again_under_that_name():
    one = trial("voc_c4", "mini", 0)
    one["model"] = one["model"] | {"name": "we ird <b>"}
    assert commands(one)[0].endswith(" --seed 0 --name 'we ird <b>'")


@pytest.mark.parametrize(
    ("task", "changes", "options"),
    [
        ("voc_c4", {"SOLVER.BASE_LR": "0.005"}, " SOLVER.BASE_LR=0.005"),
        ("voc_c4", {"SOLVER.STEPS": "[3, 5]", "SOLVER.MAX_ITER": "6"}, " SOLVER.MAX_ITER=6 'SOLVER.STEPS=[3, 5]'"),
        ("cityscapes_semantic", {"lr": "0.1", "resize": "[128, 64]"}, " lr=0.1 'resize=[128, 64]'"),
        ("imagenet_linear", {}, " --accumulate 4 --skip-bad 2"),
        ("imagenet_linear", {"lr": "0.3"}, " --precision fp32 lr=0.3"),
    ],
)
def test_a_trial_with_changes_has_a_command_that_makes_them(task, changes, options, monkeypatch):
    made = journey.resolve(task, "mini", changes, "fp32" if "precision" in options else None)
    if "accumulate" in options:
        made = protocols.tolerant(protocols.accumulated(made, 4), 2)
    one = trial(task, "mini", 0, made.nonstandard, hash=protocols.digest(made), content=protocols.protocol(made))
    (line,) = commands(one)
    assert line.endswith(f" --seed 0{options}")
    planned = []
    monkeypatch.setattr(preview, "plan", lambda resolved, *_: planned.append(resolved) or {})
    monkeypatch.setattr(preview, "described", str)
    monkeypatch.setattr("sys.argv", [*shlex.split(line), "--dry-run"])
    with pytest.raises(SystemExit):
        cli.main()
    assert [protocols.digest(resolved) for resolved in planned] == [protocols.digest(made)]


def test_a_change_that_is_none_has_no_command():
    made = journey.resolve("voc_c4", "mini", {"SOLVER.BASE_LR": "0.005"})
    content, digest = protocols.protocol(made), protocols.digest(made)
    for key, values in (("precision", content | {"precision": ["fp32"]}), ("gone", content), ("SOLVER.BASE_LR", {})):
        (line,) = commands(trial("voc_c4", "mini", 0, [key], hash=digest, content=values))
        assert line.endswith(f"has changed {key}: see the record")


def test_a_trial_of_the_first_mini_protocol_has_none():
    task = "cityscapes_semantic"
    first = protocols.mini(journey.resolve(task, "paper", {}))
    one = trial(task, "mini", 3, name=first.name, hash=protocols.digest(first))
    digest = protocols.digest(first)[:12]
    assert commands(one) == [f"# {task}@mini, seed 3: protocol {digest} is no longer offered"]


def test_a_trial_of_a_task_that_is_none_has_none():
    assert commands(trial("voc_c4", "mini", 0) | {"task": "gone"})[0].endswith(" is no longer offered")


def test_what_a_record_says_is_no_line_of_the_shell():
    hostile = trial("voc_c4", "mini", 0, nonstandard=["SOLVER.MAX_ITER", "x\nrm -rf ~"], name="a\r\nreboot\u2028#")
    (line,) = commands(hostile)
    assert line.startswith("# a reboot #, seed 0: protocol ") and len(line.splitlines()) == 1
    assert "has changed SOLVER.MAX_ITER, x rm -rf ~: see the record" in line


def test_files_of_one_name_have_cards_of_their_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records").mkdir()
    for module in (sources, weights):
        monkeypatch.setattr(module, "prove", lambda *_: {})
    monkeypatch.setattr(report, "_facts", lambda *_: [])
    for run in "ab":
        (tmp_path / run).mkdir()
        (tmp_path / run / "backbone.pth").touch()
        model = {"name": "moco_v2", "sha256": run * 64, "arch": "resnet18"}
        source = SimpleNamespace(tensors={}, arch="resnet18", traits={})
        monkeypatch.setattr(journey, "opened", lambda *_, found=(model, source): found)
        card, *_ = report.write(f"{run}/backbone.pth", None, tmp_path / "records", None, None)
        assert str(card) == f"runs/report/moco_v2-{run * 8}/card.md" and f"{run}/backbone.pth" in card.read_text()


def test_the_card_of_packaged_weights_has_the_commands_of_their_own_trials_and_of_their_changes(monkeypatch, tmp_path):
    root = catalog.ROOT / "results" / "measured"
    changed = next(trial for trial in record.trials(root) if trial["nonstandard"] == ["precision"])
    of = [trial for trial in record.trials(root) if trial["model"]["sha256"] == changed["model"]["sha256"]]
    for module in (sources, weights):
        monkeypatch.setattr(module, "prove", lambda *_: {})
    monkeypatch.setattr(report, "_facts", lambda *_: [])
    source = SimpleNamespace(tensors={}, arch="resnet18", traits={})
    monkeypatch.setattr(journey, "opened", lambda *_: (changed["model"], source))
    (tmp_path / "sup.pth").touch()
    card, *_ = report.write(str(tmp_path / "sup.pth"), tmp_path / "card", root, None, None)
    made = [line for line in card.read_text().splitlines() if line.startswith("bench transfer ")]
    assert len(made) == len(of) and sum(line.endswith(" --precision fp32") for line in made) == 5
