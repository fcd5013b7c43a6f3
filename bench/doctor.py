"""`bench doctor`: what is installed, what is missing and what that means, one line each."""

import importlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench import provenance

# import name, distribution, what does not run without it
NEEDED = (
    ("torch", "torch", "everything but the tables"),
    ("torchvision", "torchvision", "everything but the tables"),
    ("cv2", "opencv-python-headless", "pretraining, and reading images"),
    ("detectron2", "detectron2", "detection tasks and the forward proof"),
    ("downstream.segmentation", "mmsegmentation", "segmentation tasks and the forward proof"),
    ("pycocotools", "pycocotools", "COCO tasks"),
    ("faster_coco_eval", "faster-coco-eval", "COCO keypoints"),
    ("tensorboard", "tensorboard", "pretraining and transfers, which write its events"),
    ("matplotlib", "matplotlib", "the forward proof, which takes a photograph of it, and plots"),
    ("pandas", "pandas", "bench results export"),
    ("scipy", "scipy", "intervals in tables"),
    ("fastjsonschema", "fastjsonschema", "records"),
    ("jinja2", "jinja2", "the leaderboard's page"),
    ("sklearn", "scikit-learn", "voc07_svm"),
    ("typer", "typer", "the command line"),
    ("rich", "rich", "the command line"),
)


def lines() -> Iterator[tuple[bool, str]]:
    """Yields (fine, line) for every check; `fine` is False where a task cannot run."""
    python = sys.version.split()[0]
    fine = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield fine, f"python {python}" + ("" if fine else ": expected 3.11, 3.12 or 3.13")
    for module, distribution, purpose in NEEDED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except Exception as error:
            yield (
                False,
                f"{distribution}: does not import ({type(error).__name__}: {error}); needed for {purpose}. In a clone: make setup",
            )
        else:
            yield True, f"{distribution} {provenance.version(distribution) or '(version unknown)'}"
    yield accelerator()
    yield True, compiled("detectron2._C", "detectron2's compiled part", "rotated boxes and deformable convolution")
    yield True, compiled("mmcv._ext", "mmcv's compiled part", "mmcv's own operators; a stand-in serves the FCN")
    yield True, dataset_root()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield (
        True,
        f"disk: {free:.0f} GiB free here" + ("" if free > 5 else "; a run at paper scale writes about 2 GiB a trial"),
    )


def accelerator() -> tuple[bool, str]:
    """Whether torch computes on the GPUs that are here, if any; and what there is."""
    try:
        import torch
    except Exception:  # not only ImportError: a library that is missing is an OSError
        return True, "GPU: unknown without torch"
    count = torch.cuda.device_count()
    if count:
        try:
            torch.ones(1, device="cuda").sum().item()
        except Exception as error:  # its driver is too old, or it is itself, for this torch
            why = " ".join(str(error).split())
            return (
                False,
                f"GPU: {count} that torch {torch.__version__} cannot use ({why:.400}): make the one fit the other",
            )
        return True, f"GPU: {count} x {torch.cuda.get_device_name(0)}"
    from bench import bfloat16

    products = "" if bfloat16.native() else " that multiply bfloat16 by way of float32, at its speed"
    return (
        True,
        f"GPU: none; {os.cpu_count()} cores{products}: use --scale mini, a trial at paper scale takes months here",
    )


def compiled(module: str, name: str, without: str) -> str:
    try:
        found = getattr(importlib.import_module(module), "__file__", None)
    except Exception:
        found = None
    return f"{name}: {'present' if found else f'absent, so no {without} (no task here needs it)'}"


def dataset_root() -> str:
    from downstream.task import ELSEWHERE

    root = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    known = ("VOC2007", "VOC2012", "coco", "lvis", "densepose", "cityscapes", "imagenet")
    folders = [f for f in known if (root / f).is_dir() or (root / "VOCdevkit" / f).is_dir()]
    origin = "DETECTRON2_DATASETS" if "DETECTRON2_DATASETS" in os.environ else "./datasets"
    alone = "".join(f", {name} under {variable}" for name, variable in ELSEWHERE.items() if os.environ.get(variable))
    return f"data: {', '.join(folders) or 'nothing found'} under {origin}{alone}" + (
        "" if folders or alone else "; say --data DIR, or bench data synthesize datasets"
    )
