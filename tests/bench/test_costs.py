"""What the reports cost on paper: volumes against a ring that is acted out, hours against the figures they come from."""

import itertools
import json
import subprocess
import sys

import pytest
import torch
import torchvision

from bench import costs


@pytest.fixture(scope="module")
def found():
    return costs.report(views=600)


def ring(n, parts):
    """Bytes that each of n processes sends in a ring all-reduce of n chunks of these sizes, acted out message by message."""
    sent, sums = [0] * n, [[{(rank, chunk)} for chunk in range(n)] for rank in range(n)]
    for phase in range(2):
        for step in range(n - 1):
            moves = [(rank, (rank - step + phase) % n) for rank in range(n)]
            payloads = [set(sums[rank][chunk]) for rank, chunk in moves]
            for (rank, chunk), payload in zip(moves, payloads, strict=True):
                sent[rank] += parts[chunk]
                sums[(rank + 1) % n][chunk] |= payload
    assert all(sums[rank][chunk] == {(r, chunk) for r in range(n)} for rank in range(n) for chunk in range(n))
    return sent


@pytest.mark.parametrize("n", [2, 8, 64])
def test_gradients_take_what_a_ring_sends(n):
    work = costs.Work("x", n, 1, 1, 1000 * n, 0, 0, 0, ())
    assert set(ring(n, [4 * 1000] * n)) == {round(work.volume(n)["gradients"])}


def test_norms_gather_two_numbers_a_channel_and_a_count_and_reduce_two_backward():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(64), torch.nn.BatchNorm2d(128))
    model[1].requires_grad_(False)
    work = costs.Work("x", 8, 1, 1, 0, *costs._norms(model, 2), ())
    gathered = sum(4 * (2 * c + 1) * 7 for c in (64, 64, 128, 128))  # a GPU's part passes 7 others, two views
    reduced = 2 * ring(8, [4 * 2 * 64 // 8] * 8)[0]
    assert work.volume(8)["batch_norm"] == gathered + reduced


def test_mocos_parameters_steps_and_gathered_bytes_are_those_of_its_networks():
    work = costs.pretraining("moco")
    backbone = torchvision.models.resnet50()
    trunk = sum(p.numel() for name, p in backbone.named_parameters() if not name.startswith("fc."))
    assert work.parameters == trunk + (2048 * 2048 + 2048) + (2048 * 128 + 128)
    assert work.steps == 200 * 5004
    assert work.gathered == (256 * 3 * 224 * 224 * 4, 256 * 2048 * 4, 256 * 128 * 4)
    assert (work.norms, work.channels, work.backward) == (0, 0, 0)  # its batch norm is shuffled, not synchronised
    assert 8 * work.seconds(8, costs.Link()) * work.steps / 3600 == pytest.approx(8 * 53)


def test_pixpros_momentum_norms_gather_and_reduce_nothing():
    work = costs.pretraining("pixpro")
    assert work.batch == 1024
    assert work.channels == 2 * work.backward > 0


def test_a_transfers_hours_are_its_steps_at_the_published_pace(found):
    work = costs.transfer("voc_c4")
    assert (work.batch, work.steps) == (16, 24000)
    row = next(row for row in found["transfers"] if row["name"] == "voc_c4")
    assert row["gpus"][8]["gpu_hours"] == pytest.approx(0.537 * 24000 * 8 / 3600)
    assert "cores" not in row["gpus"][8]
    unknown = {row["name"] for row in found["transfers"] if row["source"] is None}
    assert unknown == {"cityscapes_semantic", "voc_semantic"}
    assert all(row["gpus"][8]["seconds"] is None for row in found["transfers"] if row["source"] is None)
    moco = found["tables"][0]
    assert moco["unknown"] == ["cityscapes_semantic", "voc_semantic"]
    assert moco["gpu_hours"] == pytest.approx(8 * moco["hours"][8])


def test_more_gpus_never_take_longer_for_a_table_and_a_batch_that_does_not_fit_has_no_line(found):
    for table in found["tables"]:
        assert table["hours"][8] >= table["hours"][64] >= table["hours"][512]
    moco = found["pretrainings"][0]
    assert list(moco["gpus"]) == [8, 64]  # 256 images
    assert moco["gpus"][8]["cores"] == pytest.approx(256 * 2 / 8 / moco["gpus"][8]["seconds"] / 600)


def test_exchange_without_cost_leaves_the_published_pace_divided():
    free = costs.Link(bandwidth=float("inf"), latency=0)
    work = costs.pretraining("moco")
    assert work.seconds(64, free) == pytest.approx(work.seconds(8, free) / 8)
    assert work.seconds(64, costs.Link()) > work.seconds(64, free)


def test_makespan_is_at_most_a_third_over_the_best_possible():
    for hours in ([3, 3, 2, 2, 2], [5, 4, 3, 3, 1, 1], [1] * 7):
        best = min(
            max(sum(h for h, s in zip(hours, places, strict=True) if s == slot) for slot in range(2))
            for places in itertools.product(range(2), repeat=len(hours))
        )
        assert best <= costs.makespan(hours, 2) <= best * 4 / 3  # Graham's bound
    assert costs.makespan([2, 1], 5) == 2


def test_the_command_prints_one_document_or_says_that_nothing_was_measured(found):
    words = [sys.executable, "-m", "bench", "costs", "--json"]
    report = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert [table["table"] for table in report["tables"]] == ["moco", "pixpro"]
    text = costs.described(found)
    assert text.startswith("On paper: nothing of this was measured on a GPU.")
    assert "facebookresearch/moco README.md, 53 hours for 200 epochs" in text
