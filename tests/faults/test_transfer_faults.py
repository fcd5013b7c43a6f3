"""`bench transfer` killed, signalled, out of room, out of memory, with broken images and beside another one."""

import contextlib
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import journey, launch
from downstream import broken, checkpoint, interruption
from downstream import task as protocols

spec = importlib.util.spec_from_file_location("transfers", Path(__file__).with_name("transfers.py"))
assert spec is not None
assert spec.loader is not None
transfers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(transfers)

ENGINES = ["voc_c4", "cityscapes_semantic", "imagenet_semi_10"]


@pytest.fixture(scope="module", autouse=True)
def frameworks():
    """What every child needs, before it is forked."""
    threads = torch.get_num_threads()
    transfers.load()
    yield
    torch.set_num_threads(threads)


@contextlib.contextmanager
def saving(seconds):
    """Engines whose checkpoints lie so far apart."""
    from downstream import classification, detection, segmentation

    with pytest.MonkeyPatch.context() as patch:
        for engine in (classification, detection, segmentation):
            patch.setattr(engine, "SAVE_SECONDS", seconds)
        yield


@pytest.fixture
def often():
    """Engines that write a checkpoint after every iteration."""
    with saving(0):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return transfers.draw(tmp_path_factory.mktemp("drawn") / "data")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The outcome of an undisturbed trial of a task, by its name; each is run once."""
    outcomes = {}

    def of(task):
        if task not in outcomes:
            out = tmp_path_factory.mktemp(task)
            with saving(180):
                process = transfers.started(transfers.transfer, out / "log", task, data, out)
            process.join()
            assert process.exitcode == 0, (out / "log").read_text()
            outcomes[task] = transfers.outcome(out)
        return outcomes[task]

    return of


def work(out):
    """The folder of the only trial."""
    return next(iter(out.glob("*/*/*/0")), out / "none")


def begun(out):
    """Whether two checkpoints stand."""
    return (work(out) / "previous.pth").exists()


def iterations(out):
    """After how many iterations the newest checkpoint was written."""
    return checkpoint._read(work(out) / "last.pth")["iteration"]


def until(ready, process=None, seconds=300):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        assert process is None or process.is_alive()
        time.sleep(0.02)


def said(log):
    """What a process has said, which is no traceback."""
    text = log.read_text()
    assert "Traceback" not in text
    return text


def ended(process, code, log):
    process.join()
    assert process.exitcode == code, log.read_text()
    return [line for line in said(log).splitlines() if line.startswith("bench: ")]


def finished(task, data, out, whole):
    """Goes on with a trial to its record, which is the undisturbed one."""
    log = out.with_suffix(".resumed")
    with saving(180):
        process = transfers.started(transfers.transfer, log, task, data, out)
    ended(process, 0, log)
    assert transfers.outcome(out) == whole(task)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("task", ENGINES)
def test_a_transfer_killed_at_a_random_moment_goes_on_to_the_same_bits(task, data, whole, tmp_path):
    undisturbed = whole(task)
    met = transfers.disturbed(task, data, tmp_path / "out", 1, random.Random(), 3.0)
    assert met["kills"] == 1
    assert transfers.outcome(tmp_path / "out") == undisturbed
    assert undisturbed["left"] == []


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("task", "number", "code"),
    [("voc_c4", "SIGTERM", 143), ("cityscapes_semantic", "SIGINT", 130), ("imagenet_semi_10", "SIGUSR2", 143)],
)
def test_a_signal_ends_a_training_with_a_checkpoint_a_line_and_its_code(
    task, number, code, loading, data, whole, tmp_path
):
    out, log = tmp_path / "out", tmp_path / "log"
    process = transfers.started(transfers.transfer, log, task, data, out)
    until(lambda: begun(out), process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == (
        task == "voc_c4"
    )  # the one that loads data is sent the signal too, as Slurm and torchrun do
    for pid in [*map(int, children), process.pid]:
        os.kill(pid, signal.Signals[number])
    [line] = ended(process, code, log)
    found = re.fullmatch(
        rf"bench: ended by {number} after iteration (\d+) of \d+, with a checkpoint in \S+; the same call with --resume "
        "goes on",
        line,
    )
    assert iterations(out) == int(found.group(1))
    if task == "imagenet_semi_10":  # the quickest
        finished(task, data, out, whole)


def test_a_signal_that_comes_twice_within_moments_is_one_and_later_a_second_one_ends_at_once(tmp_path, monkeypatch):
    watch = interruption.Watch(tmp_path, 1, 1, 60, torch.device("cpu"))
    for _ in range(2):
        watch._noted(signal.SIGTERM, None)
    assert watch.noted == signal.SIGTERM
    monkeypatch.setattr(interruption, "ECHO", -1)
    with pytest.raises(SystemExit):
        watch._noted(signal.SIGTERM, None)


def test_a_signal_during_the_test_ends_it_at_once_and_the_training_is_not_done_again(
    data, whole, tmp_path, monkeypatch
):
    from downstream import segmentation

    whole("cityscapes_semantic")
    out, log, testing = tmp_path / "out", tmp_path / "log", tmp_path / "testing"
    with monkeypatch.context() as slow:
        slow.setattr(segmentation, "_test", lambda *_: (testing.touch(), time.sleep(600)))
        process = transfers.started(transfers.transfer, log, "cityscapes_semantic", data, out)
        until(testing.exists, process)
        os.kill(process.pid, signal.SIGTERM)
        assert "ended by SIGTERM outside of the training" in ended(process, 143, log)[0]
    with monkeypatch.context() as none:
        none.setattr(segmentation, "loss_of", lambda *_: 1 / 0)
        finished("cityscapes_semantic", data, out, whole)


# --- disks


@pytest.fixture
def small(tmpfs):
    """A folder of its own file system of 400 MB, of which `fill` takes the rest."""
    return tmpfs("400m")


def fill(folder):
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as file:
        while file.write(bytes(1 << 20)) == 1 << 20:
            pass
        while file.write(b"x"):
            pass


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("task", ["voc_c4", "imagenet_semi_10"])
def test_a_disk_that_fills_up_is_one_sentence_and_with_room_it_goes_on_to_the_same(task, data, whole, small, tmp_path):
    out, log = small / "out", tmp_path / "log"
    process = transfers.started(transfers.transfer, log, task, data, out)
    until(lambda: begun(out), process)
    os.kill(process.pid, signal.SIGSTOP)
    fill(small)
    os.kill(process.pid, signal.SIGCONT)
    [line] = ended(process, 1, log)
    assert re.match(
        rf"bench: expected room for [\d.]+ (MB|bytes) in {out}\S* to write \S+, found the disk or the quota full with "
        r"[\d.]+ (MB|bytes) free: make room there and call again with --resume; what was written before is whole",
        line,
    )
    assert not list(out.glob("*/*/*/0.json"))
    (small / "ballast").unlink()
    assert iterations(out) >= 2
    finished(task, data, out, whole)


def test_a_record_without_room_is_one_sentence_and_the_trained_network_is_kept(
    data, whole, small, tmp_path, monkeypatch
):
    from results import record

    out, log, write = small / "out", tmp_path / "log", record.write

    def filled(*given):
        fill(small)
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(record, "write", filled)
        process = transfers.started(transfers.transfer, log, "cityscapes_semantic", data, out)
        [line] = ended(process, 1, log)
    assert re.match(r"bench: expected room for \d+ bytes in \S+ to write 0\.json, found the disk", line)
    (small / "ballast").unlink()
    assert iterations(out) == 14
    finished("cityscapes_semantic", data, out, whole)


# --- numbers, images, memory, workers


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("voc_c4", {"SOLVER.BASE_LR": "1e15", "SOLVER.WARMUP_ITERS": "0"}),
        ("cityscapes_semantic", {"lr": "1e25"}),
        ("imagenet_semi_10", {"lr": "1e25", "head_lr": "1e25"}),
    ],
)
def test_a_training_that_diverges_stops_with_the_numbers_and_keeps_finite_weights(task, changes, data, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    [line] = ended(transfers.started(transfers.transfer, log, task, data, out, **changes), 1, log)
    assert re.match(
        r"bench: expected (a finite loss, found \S+ in iteration \d+ with learning rate \S+ and batch \d+ "
        r"\(the last finite losses: [\d., e+]+\): .* lower the learning rate|finite weights after \d+ iterations, found .* in "
        r".*: the last checkpoint in .* is kept)",
        line,
    )
    if (file := work(out) / "last.pth").exists():
        state = checkpoint._read(file)
        assert all(v.isfinite().all() for v in state["model"].values() if v.is_floating_point())
    assert not list(out.glob("*/*/*/0.json"))


def spoil(image):
    """Cuts an image's file in half."""
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def spoiling(act, images):
    """What does `act` and then spoils these images."""

    def acted(*given):
        made = act(*given)
        for image in images:
            spoil(image)
        return made

    return acted


IMAGES = {
    "voc_c4": "VOC2007/JPEGImages/*.jpg",
    "cityscapes_semantic": "cityscapes/leftImg8bit/train/*/*.png",
    "imagenet_semi_10": "imagenet/train/*/*.JPEG",
}


@pytest.mark.parametrize("task", ENGINES)
def test_a_broken_image_is_named_by_the_preflight_and_by_the_run(task, data, tmp_path, monkeypatch):
    copied = tmp_path / "data"
    subprocess.run(["cp", "-r", data, copied], check=True)
    images = sorted(copied.glob(IMAGES[task]))
    for owner, look in ((journey, "plan"), (broken, "preflight")):  # images break after each
        with monkeypatch.context() as later:
            later.setattr(owner, look, spoiling(getattr(owner, look), images))
            out, log = tmp_path / look, tmp_path / f"{look}.log"
            [line] = ended(transfers.started(transfers.transfer, log, task, copied, out), 2, log)
        assert line.startswith("bench: expected a readable image, found a broken or foreign file: ")
        assert any(str(image) in line for image in images)
        assert len(list(out.glob("*/*/*/0/log.jsonl"))) == (look == "preflight")  # training had begun
        subprocess.run(["cp", "-rT", data, copied], check=True)
    for image in images:
        spoil(image)
    report, words = journey.checked(journey.resolve(task, "paper", {}), copied, False)
    assert not report["runs"]
    assert images[0].name in words


def tolerant(task, data, out, allowed):
    """A trial that may leave out so many broken images."""
    resolved = protocols.tolerant(journey.resolve(task, "mini", transfers.TASKS[task]), int(allowed))
    journey.transfer(journey.plan(resolved, "random", data), [0], out, False, print)


@pytest.mark.parametrize("task", ENGINES)
def test_broken_training_images_are_left_out_where_that_is_allowed_and_stand_in_the_record(task, data, tmp_path):
    copied = tmp_path / "data"
    subprocess.run(["cp", "-r", data, copied], check=True)
    trained = {r for name in ("trainval", "train") for r in copied.glob(f"VOC2007/ImageSets/Main/{name}.txt")}
    first = next(iter(trained)).read_text().split()[0] if trained else ""
    images = sorted(copied.glob(IMAGES[task].replace("*.jpg", f"{first}.jpg")))
    broken = images if task == "imagenet_semi_10" else images[:1]  # of ImageNet's a tenth is drawn
    broken = [image for i, image in enumerate(broken) if i % 3 < 2]
    for image in broken:
        spoil(image)
    out, log = tmp_path / "out", tmp_path / "log"
    ended(transfers.started(tolerant, log, task, copied, out, allowed=str(len(images))), 0, log)
    [record] = [json.loads(file.read_text()) for file in out.glob("*/*/*/0.json")]
    named = record["effective"]["skipped"]
    assert named
    assert all(any(str(image) in reason for image in broken) for reason in named)
    assert record["nonstandard"] == sorted([*transfers.TASKS[task], "skip_bad"])
    assert "left out" in log.read_text()
    assert named[0] in log.read_text()


@pytest.mark.parametrize("task", ENGINES)
def test_more_broken_training_images_than_allowed_are_refused_by_number_and_name(task, data, tmp_path):
    copied = tmp_path / "data"
    subprocess.run(["cp", "-r", data, copied], check=True)
    for image in copied.glob(IMAGES[task]):
        spoil(image)
    log = tmp_path / "log"
    [line] = ended(transfers.started(tolerant, log, task, copied, tmp_path / "out", allowed="1"), 2, log)
    assert re.match(
        r"bench: expected at most 1 broken images \(--skip-bad\), found \d+ of \d+, such as: .*foreign file", line
    )
    assert str(copied) in line


@pytest.fixture
def loading(monkeypatch):
    """Detection whose images are loaded by a process, as on a GPU."""
    from downstream import detection

    made = detection._Training.__init__

    def with_worker(self, *given):
        made(self, *given)
        self.workers = 1

    monkeypatch.setattr(detection._Training, "__init__", with_worker)
    return detection


@pytest.mark.usefixtures("often")
def test_a_dead_data_loader_process_is_one_sentence_and_the_run_goes_on_to_the_same(
    loading, data, whole, tmp_path, monkeypatch
):
    out, log, mapped = tmp_path / "out", tmp_path / "log", loading.mapped
    died = tmp_path / "died"

    def killed(mapper, image):
        if not died.exists() and begun(out):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return mapped(mapper, image)

    with monkeypatch.context() as patch:
        patch.setattr(loading, "mapped", killed)
        [line] = ended(transfers.started(transfers.transfer, log, "voc_c4", data, out), 1, log)
    assert re.match(
        r"bench: expected the processes that load data to live, .* \(DATALOADER\.NUM_WORKERS\).*--resume", line
    )
    finished("voc_c4", data, out, whole)


@pytest.mark.usefixtures("loading")
def test_a_broken_image_in_a_data_loader_process_is_named_in_one_sentence(data, tmp_path, monkeypatch):
    copied = tmp_path / "data"
    subprocess.run(["cp", "-r", data, copied], check=True)
    monkeypatch.setattr(broken, "preflight", spoiling(broken.preflight, list(copied.glob(IMAGES["voc_c4"]))))
    log = tmp_path / "log"
    [line] = ended(transfers.started(transfers.transfer, log, "voc_c4", copied, tmp_path / "out"), 2, log)
    assert re.match(r"bench: expected a readable image, found .*VOC2007/JPEGImages/\d+\.jpg .* fetch it again", line)


def starved(*given, **changes):
    """A transfer in a process that may have 300 MB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (300 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    transfers.transfer(*given, **changes)


def test_want_of_memory_is_one_sentence_that_says_what_to_lower(data, tmp_path):
    log = tmp_path / "log"
    process = transfers.started(
        starved, log, "cityscapes_semantic", data, tmp_path / "out", crop="1024", batch="4", ratio="[16, 16]"
    )
    [line] = ended(process, 1, log)
    assert re.match(r"bench: expected enough memory, found too little \(.+\): .* or lower the images' sizes", line)


# --- processes


@pytest.mark.usefixtures("often")
def test_a_second_run_in_a_folder_is_refused_with_the_first_ones_process_and_host_and_a_killed_one_blocks_nobody(
    data, whole, tmp_path
):
    out, log = tmp_path / "out", tmp_path / "log"
    first = transfers.started(transfers.transfer, log, "cityscapes_semantic", data, out)
    until(lambda: begun(out), first)
    os.kill(first.pid, signal.SIGSTOP)
    second = transfers.started(transfers.transfer, tmp_path / "second", "cityscapes_semantic", data, out)
    [line] = ended(second, 1, tmp_path / "second")
    assert line == (
        f"bench: expected nobody at work in {work(out)}, found process {first.pid} on {os.uname().nodename}: let it finish, or "
        "take another --out"
    )
    first.kill()
    first.join()
    finished("cityscapes_semantic", data, out, whole)


def test_a_trial_of_a_sweep_runs_in_the_folder_that_its_launcher_holds(tmp_path, monkeypatch):
    with launch.locked(tmp_path / "0") as held:
        assert held is not None
        with pytest.raises(launch.Busy), journey.alone(tmp_path / "0"):
            pass
        monkeypatch.setenv("BENCH_TRIAL", str(tmp_path / "0"))
        with journey.alone(tmp_path / "0"):
            pass


def one_of_two(rank, port, task, data, out, **changes):
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    transfers.transfer(task, data, out, **changes)


def two(log, *given, **changes):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        transfers.started(one_of_two, log.with_suffix(f".{rank}"), rank, port, *given, **changes) for rank in (0, 1)
    ]


@pytest.mark.usefixtures("often")
def test_an_interrupted_trial_is_not_begun_anew_unasked(data, whole, tmp_path):
    task, out = "imagenet_semi_10", tmp_path / "out"
    process = transfers.started(transfers.transfer, tmp_path / "log", task, data, out)
    until(lambda: begun(out), process)
    process.kill()
    process.join()
    before = (work(out) / "last.pth").read_bytes()
    resolved = journey.resolve(task, "mini", transfers.TASKS[task])
    with pytest.raises(
        ValueError, match=r"no earlier run in .*/0, found last\.pth: --resume goes on with it, or choose"
    ):
        journey.transfer(journey.plan(resolved, "random", data), [0], out, False, print)
    assert (work(out) / "last.pth").read_bytes() == before
    finished(task, data, out, whole)


def apart(log, task, data, outs, **changes):
    """Two processes of one call whose --out is each one's own, as on machines that share no disk."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        transfers.started(one_of_two, log.with_suffix(f".{rank}"), rank, port, task, data, out, **changes)
        for rank, out in enumerate(outs)
    ]


def both(log, code, processes):
    """What the first of two processes has said, when both have ended with this code."""
    lines = [ended(process, code, log.with_suffix(f".{rank}")) for rank, process in enumerate(processes)]
    return "\n".join(lines[0])


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("task", ENGINES)
def test_machines_that_do_not_share_the_folder_are_told_so(task, data, tmp_path):
    """They would train different trials together, or wait for one another."""
    outs, log = [tmp_path / "one", tmp_path / "other"], tmp_path / "log"
    processes = two(log, task, data, outs[0])
    until(lambda: begun(outs[0]), processes[0])
    for process in processes:
        process.kill()
        process.join()
    iteration = iterations(outs[0])
    refused = f"last.pth, found iteration {iteration} by process 0, iteration 0 by process 1: --out must be a folder"
    assert refused in both(tmp_path / "apart", 2, apart(tmp_path / "apart", task, data, outs))
    if task != "imagenet_semi_10":  # what has its record is the engine's business no more
        return
    both(tmp_path / "on", 0, two(tmp_path / "on", task, data, outs[0]))
    refused = "0.json, found it by process 0, none by process 1: --out must be a folder"
    assert refused in both(tmp_path / "again", 2, apart(tmp_path / "again", task, data, outs))
    assert not list(outs[1].glob("*/*/*/0.json"))


@pytest.mark.usefixtures("often")
def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_iteration(data, tmp_path):
    out, log, eight = tmp_path / "out", tmp_path / "log", {"SOLVER.MAX_ITER": "8"}
    processes = two(log, "voc_c4", data, out, **eight)
    until(lambda: begun(out), processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)
    lines = [ended(process, 143, log.with_suffix(f".{rank}")) for rank, process in enumerate(processes)]
    assert [len(each) for each in lines] == [1, 0]
    assert f"ended by SIGTERM after iteration {iterations(out)} of 8" in lines[0][0]
    undisturbed = tmp_path / "undisturbed"
    with saving(180):
        for name, folder in (("resumed", out), ("whole", undisturbed)):
            for rank, process in enumerate(two(tmp_path / name, "voc_c4", data, folder, **eight)):
                ended(process, 0, tmp_path / f"{name}.{rank}")
    assert transfers.outcome(out) == transfers.outcome(undisturbed)


def signalled(task, data, out):
    """An iteration in which a signal comes, and a first process that takes its time over the checkpoint."""
    torch.distributed.init_process_group("gloo")
    with interruption.Watch(out, 2, 4, 180, torch.device("cpu")) as watch:
        os.kill(os.getpid(), signal.SIGTERM)
        watch.look(1.0, 0, 0.1)
        if watch.due(1) and torch.distributed.get_rank() == 0:
            time.sleep(1)
            (out / "last.pth").touch()
        watch.pass_on(1)


def test_no_process_ends_before_the_first_has_written_the_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(transfers, "transfer", signalled)
    first, other = two(tmp_path / "log", "voc_c4", data, tmp_path)
    ended(other, 143, tmp_path / "log.1")
    assert (tmp_path / "last.pth").exists()
    ended(first, 143, tmp_path / "log.0")


@pytest.mark.usefixtures("often")
def test_a_loss_that_is_not_finite_in_one_of_two_processes_ends_both(data, tmp_path, monkeypatch):
    from downstream import segmentation

    out, log, loss_of = tmp_path / "out", tmp_path / "log", segmentation.loss_of

    def broken(*given):
        bad = os.environ.get("RANK") == "1" and begun(out)
        return loss_of(*given) * (float("nan") if bad else 1)

    monkeypatch.setattr(segmentation, "loss_of", broken)
    processes = two(log, "cityscapes_semantic", data, out)
    [line] = ended(processes[0], 1, log.with_suffix(".0"))
    assert "found one that is not in another process in iteration" in line
    [own] = ended(processes[1], 1, log.with_suffix(".1"))
    assert own.startswith("bench: process 1: expected a finite loss, found nan in iteration ")
    assert iterations(out) >= 2


# --- clocks


def backwards(*given):
    """A transfer while the clock on the wall goes back a day with every look at it."""
    days = iter(range(20_000, 0, -1))
    time.time = lambda: 86_400.0 * next(days)
    transfers.transfer(*given)


def test_a_clock_that_goes_backwards_changes_nothing(data, whole, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    ended(transfers.started(backwards, log, "imagenet_semi_10", data, out), 0, log)
    assert transfers.outcome(out) == whole("imagenet_semi_10")
    [file] = out.glob("*/*/*/0.json")
    assert all(seconds >= 0 for seconds in json.loads(file.read_text())["seconds"].values())


# --- what a folder says


def test_a_trials_folder_says_protocol_command_environment_log_metrics_and_has_tensorboards_events(
    data, tmp_path, monkeypatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("BENCH_KEY", "secret")
    out, log = tmp_path / "out", tmp_path / "log"
    ended(transfers.started(transfers.transfer, log, "imagenet_linear", data, out), 0, log)
    [record] = out.glob("*/*/*/0.json")
    written = json.loads((work(out) / "run.json").read_text())
    trial = json.loads(record.read_text())
    assert all(
        written[key] == trial[key] for key in ("task", "protocol", "model", "data", "seed", "marks", "nonstandard")
    )
    [start] = written["starts"]
    assert start["command"] == sys.argv
    assert set(start) == {"command", "folder", "environment", "versions", "machine", "commit", "started"}
    assert "BENCH_KEY" not in start["environment"]
    lines = [json.loads(line) for line in (work(out) / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(work(out) / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [
        (line["iteration"], pytest.approx(line["loss"])) for line in lines
    ]
    assert json.loads((work(out) / "metrics.json").read_text())["metrics"] == trial["metrics"]
