import hashlib

import pytest


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def trial():
    """Makes a complete record: trial(task, model name, metrics, seed=..., ...)."""

    def make(task, name, metrics, seed=0, scale="mini", protocol="a", data="real", arch="resnet18", **more):
        random = name.startswith("random")
        changed = more.get("nonstandard", [])
        return {
            "schema": 1,
            "task": task,
            "scale": scale,
            "protocol": {
                "name": task + ("@mini" if scale == "mini" else ""),
                "hash": sha(task + scale + protocol),
                "content": {"protocol": protocol},
            },
            "metrics": metrics,
            "model": {
                "name": name,
                "family": "random" if random else "bench",
                "arch": arch,
                "sha256": None if random else sha(more.get("weights", name + arch)),
                "traits": {"channel_order": "RGB"},
                "method": None if random else more.get("method", name.partition("_")[0]),
                "variant": more.get("variant"),
                "epochs": None if random else more.get("epochs", 10),
                "pretrain_data": None if random else "imagenet",
            },
            "loaded": {"matched": 120, "missing": [], "unused": []},
            "proof": {"detectron2": 1e-7, "mmseg": 0.0},
            "data": {"train": more.get("train", 400), "test": more.get("test", 200), "digest": sha(data + task)},
            "seed": seed,
            "effective": {"batch": 8, "lr": 0.01, "iterations": 600, "norm": "BN", "world_size": 1},
            "marks": (["mini"] if scale == "mini" else []) + (["nonstandard"] if changed else []),
            "nonstandard": changed,
            "versions": {"torch": "2"},
            "machine": {"cores": 2},
            "commit": "0" * 40,
            "seconds": {"train": 1.0, "test": 1.0},
            "finished": "2026-11-24T08:00:00Z",
        }

    return make
