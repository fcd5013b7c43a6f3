"""The store of records while processes that write into it are killed."""

import json
import multiprocessing
import os
import random
import time

from results import record

BASE = {
    "schema": 1,
    "task": "voc_c4",
    "scale": "mini",
    "protocol": {"name": "voc_c4@mini", "hash": "a" * 64, "content": {"filling": "x" * 100_000}},
    "metrics": {"AP": 1.0, "AP50": 2.0, "AP75": 1.0},
    "model": {"name": "m", "family": "random", "arch": "resnet18", "sha256": None, "traits": {}},
    "loaded": {"matched": 0, "missing": [], "unused": []},
    "data": {"train": 1, "test": 1, "digest": "b" * 64},
    "effective": {"batch": 1, "lr": 0.1, "iterations": 1, "norm": "BN", "world_size": 1, "precision": "fp32"},
    "marks": ["mini"],
    "nonstandard": [],
    "versions": {},
    "machine": {},
    "seconds": {"train": 1.0, "test": 1.0},
    "finished": "2026-01-01T00:00:00Z",
}


def endless(root, first, told):
    """Writes records, one seed after the other, and tells each that is written."""
    for seed in range(first, first + 1_000_000):
        record.write({**BASE, "seed": seed}, root)
        os.write(told, f"{seed}\n".encode())


def test_records_of_32_processes_that_are_killed_while_writing_are_whole_and_none_that_was_told_is_lost(tmp_path):
    chance, context = random.Random(), multiprocessing.get_context("fork")
    read, told = os.pipe()
    writers = [context.Process(target=endless, args=(tmp_path, 10**6 * i, told)) for i in range(32)]
    for writer in writers:
        writer.start()
    text = b""
    while text.count(b"\n") <= 64:
        text += os.read(read, 1 << 16)
    for writer in writers:
        time.sleep(chance.uniform(0, 0.05))
        os.set_blocking(read, False)
        while block := _available(read):
            text += block
        writer.kill()
    for writer in writers:
        writer.join()
    os.close(told)
    os.set_blocking(read, True)
    while block := os.read(read, 1 << 16):
        text += block
    written = {int(seed) for seed in text.split()}
    assert len(written) > 64
    stored = {each["seed"]: each for each in record.load(tmp_path)}
    assert written <= set(stored)
    assert all(stored[seed] == {**BASE, "seed": seed} for seed in stored)
    [folder] = tmp_path.glob("*/*/*")
    record.write({**BASE, "seed": 0}, tmp_path)
    assert json.loads((folder / "0.json").read_text()) == {**BASE, "seed": 0}


def _available(read):
    try:
        return os.read(read, 1 << 16)
    except BlockingIOError:
        return b""
