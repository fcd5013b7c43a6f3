"""Fine-tuning and testing on downstream tasks.

finetune  iterations of Faster R-CNN R50-C4 (voc_c4@mini) and Mask R-CNN R50-FPN (coco_fpn_1x@mini) against detectron2's
          DefaultTrainer on the same configuration: 1.8 times in bf16; at least 0.98 in fp32, where the losses and the weights
          after them are first found to be the same bits on the same batches
segment   iterations of MoCo's FCN on crops of 256 pixels (cityscapes_semantic) against mmengine's Runner on the same network,
          crops and optimiser: 1.5 times in bf16, at least 0.98 in fp32
infer     testing the first detector, evaluation included, against detectron2's inference_on_dataset with its own evaluator: 1.5
          times in bf16, AP within 0.1

The data are drawn. Detection trains at one scale, the middle one of the protocol's, so that every call has as much to do. The
reference is each framework's trainer with the hooks and the loader's processes that it has by default; periodic checkpoints,
which both write, are not reached. The frameworks are imported by name here: only the engines may depend on them.
"""

import dataclasses
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from bench import bfloat16
from bench.speed import Row, cost, faster

ITERATIONS = 3  # of a training in a call
LESSONS = 60  # iterations before a test, so that there is something to find
CROP, SIZE = 256, (640, 320)  # of segmentation: a crop's side, a drawn image's width and height
TARGETS = {"bf16": (1.8, 1.5), "fp32": (0.98, 0.98)}  # of detection and of segmentation


def finetune(folder: Path) -> list[Row]:
    """Both detectors in bf16 and fp32."""
    bfloat16.make_fast()
    _drawn(folder / "data")
    rows = []
    for name, what in (("voc_c4", "Faster R-CNN R50-C4"), ("coco_fpn_1x", "Mask R-CNN R50-FPN")):
        task = _protocol(name)
        with _default_trainer(task, folder) as trainer:
            _same_bits(_training(task, "fp32", folder), trainer)
            for precision, (target, _) in TARGETS.items():
                training = _training(task, precision, folder)
                with closing(training._loader()) as batches:

                    def ours(training: Any = training, batches: Any = batches) -> None:
                        for number, batch in enumerate(itertools.islice(batches, ITERATIONS)):
                            training._step(batch, number)
                            training.scheduler.step()

                    def theirs(trainer: Any = trainer) -> None:
                        for _ in range(ITERATIONS):
                            _iteration(trainer)

                    against = f"detectron2's DefaultTrainer, {what}, {precision}"
                    rows.append(faster("finetune", against, target, ours, theirs))
    return rows


def _drawn(data: Path) -> None:
    from downstream import synthetic

    synthetic.synthesize(data, voc=96, coco=96, cityscapes=0, imagenet=0)


def _protocol(name: str) -> Any:
    """A mini protocol with one training scale."""
    from bench import journey

    task = journey.resolve(name, "mini", {})
    scales = task.settings["INPUT.MIN_SIZE_TRAIN"]  # type: ignore[union-attr]
    return journey.resolve(name, "mini", {"INPUT.MIN_SIZE_TRAIN": str([scales[len(scales) // 2]])})


def _training(task: Any, precision: str, folder: Path, arch: str = "resnet50") -> Any:
    """The engine's training of a random network."""
    import torch

    from downstream import datasets, detection

    detection._quiet()
    cfg, device = detection.configuration(task, arch), torch.device("cpu")
    detection._trained_norm(cfg, 1, device)
    cfg.SEED = 0
    torch.manual_seed(0)
    model = detection.network(cfg).train()
    if precision == "bf16":
        detection._bf16(model, device)
    images = [r for name in cfg.DATASETS.TRAIN for r in datasets.records(name, folder / "data")]
    mapper = detection._mapper(cfg, folder / "data")
    return detection._Training(cfg, model, detection._usable(cfg, images), mapper, folder, device, {}, task.name)


@contextmanager
def _default_trainer(task: Any, folder: Path, arch: str = "resnet50") -> Iterator[Any]:
    """detectron2's trainer of the same configuration, with MoCo's head registered as its train_net.py does."""
    from detectron2 import engine, modeling
    from detectron2.utils import events

    from downstream import detection

    detection._quiet()
    heads = modeling.ROI_HEADS_REGISTRY
    if "Res5ROIHeadsExtraNorm" not in heads:
        heads.register(detection.Res5ROIHeadsExtraNorm)
    cfg = detection.configuration(task, arch)
    _registered((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), folder / "data")
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder / "detectron2")
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    # its trainer would set up a log on standard output otherwise
    logging.getLogger("detectron2").setLevel(logging.INFO)
    with warnings.catch_warnings(), events.EventStorage() as storage:
        warnings.simplefilter("ignore")
        trainer = engine.DefaultTrainer(cfg)
        trainer.storage = storage
        trainer.before_train()
        yield trainer
        trainer.after_train()
        del trainer._trainer._data_loader_iter_obj  # ends the loader's processes


def _registered(names: tuple[str, ...], data: Path) -> None:
    """Makes these names of detectron2's catalog mean the drawn data."""
    from detectron2 import data as catalogs
    from detectron2.data import datasets as builtin
    from detectron2.data.datasets import builtin_meta as metadata

    from downstream import datasets

    for name in names:
        for known in (catalogs.DatasetCatalog, catalogs.MetadataCatalog):
            if name in known.list():
                known.remove(name)
        if name.startswith("voc"):
            _, year, split = name.split("_")
            builtin.register_pascal_voc(name, str(data / f"VOC{year}"), split, int(year))
        else:
            file, images = datasets.annotation_file(name, data), data / "coco" / f"{name.split('_')[-1]}2017"
            builtin.register_coco_instances(name, metadata._get_builtin_metadata("coco"), str(file), str(images))


def _iteration(trainer: Any) -> None:
    """One iteration of a detectron2 trainer, as its `train` makes it."""
    trainer.before_step()
    trainer.run_step()
    trainer.after_step()
    trainer.iter += 1


def _same_bits(training: Any, trainer: Any) -> None:
    """Asserts that the engine and detectron2's trainer have the same losses and weights on the same batches."""
    import torch

    model = trainer._trainer.model
    model.load_state_dict(training.model.state_dict())
    loader = trainer._trainer._data_loader_iter_obj
    with closing(training._loader()) as batches:
        for number, batch in enumerate(itertools.islice(batches, 2)):
            torch.manual_seed(number)
            mine = training._step(batch, number)
            training.scheduler.step()
            torch.manual_seed(number)
            trainer._trainer._data_loader_iter_obj = iter([batch])
            _iteration(trainer)
            theirs = trainer.storage.latest()
            assert all(value == theirs[name][0] for name, value in mine.items() if name != "loss"), (mine, theirs)
    trainer._trainer._data_loader_iter_obj = loader
    both = zip(training.model.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in both), "expected the same weights after the same batches"


def segment(folder: Path) -> list[Row]:
    """MoCo's FCN in bf16 and fp32."""
    from downstream import synthetic

    bfloat16.make_fast()
    synthetic.synthesize(folder / "data", voc=0, coco=0, cityscapes=48, imagenet=0, side=384)
    from bench import journey

    task = journey.resolve("cityscapes_semantic", "mini", {"crop": str(CROP), "resize": "null"})
    runner = _runner(task, folder)
    rows = []
    for precision, (_, target) in TARGETS.items():
        step = _segmentation(dataclasses.replace(task, precision=precision), folder / "data")

        def ours(step: Any = step) -> None:
            for _ in range(ITERATIONS):
                step()

        def theirs() -> None:
            loop = runner.train_loop
            for _ in range(ITERATIONS):
                loop.run_iter(next(loop.dataloader_iterator))

        rows.append(faster("segment", f"mmengine's Runner, MoCo's FCN at {CROP} px, {precision}", target, ours, theirs))
    return rows


def _segmentation(task: Any, data: Path) -> Callable[[], None]:
    """One iteration of the engine's training of a random ResNet-50, a call."""
    import torch

    from downstream import segmentation
    from downstream.trial import ahead

    torch.manual_seed(0)
    model = segmentation.network(task, "resnet50").to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(model.parameters(), task.lr, task.momentum, weight_decay=task.weight_decay)
    crops = segmentation.Crops(task, segmentation.TRAITS, segmentation._pairs(task, data, "train"), 0)
    samples, device = ahead(crops, itertools.count(), 2 * task.batch), torch.device("cpu")

    def step() -> None:
        loss = segmentation._batch_loss(model, [next(samples) for _ in range(task.batch)], device, task.precision)
        loss.item()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def _runner(task: Any, folder: Path) -> Any:
    """mmengine's Runner of the same network, crops and optimiser, after its first iteration."""
    import torch

    from downstream import segmentation  # its stand-in for mmcv's compiled part comes first

    from mmengine.runner import Runner  # isort: skip
    from mmseg.utils import register_all_modules  # isort: skip

    register_all_modules()
    traits = segmentation.TRAITS
    torch.manual_seed(0)
    model = segmentation.network(task, "resnet50")
    model.data_preprocessor = segmentation.models.SegDataPreProcessor(
        mean=traits["mean"], std=traits["std"], bgr_to_rgb=True, size=(task.crop, task.crop), seg_pad_val=255
    )
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": SIZE, "ratio_range": task.ratio, "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (task.crop, task.crop)},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PackSegInputs"},
    ]
    prefix = {"img_path": "leftImg8bit/train", "seg_map_path": "gtFine/train"}
    data = {"type": "CityscapesDataset", "data_root": str(folder / "data" / "cityscapes"), "data_prefix": prefix}
    optimizer = {"type": "SGD", "lr": task.lr, "momentum": task.momentum, "weight_decay": task.weight_decay}
    runner = Runner(
        model,
        str(folder / "mmengine"),
        train_dataloader={
            "batch_size": task.batch,
            "num_workers": 2,  # mmsegmentation's own configurations have 2 or 4
            "persistent_workers": True,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {**data, "pipeline": pipeline},
        },
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 1},
        optim_wrapper={"type": "OptimWrapper", "optimizer": optimizer},
        default_hooks={"checkpoint": None},
        default_scope="mmseg",
        log_level="ERROR",
    )
    runner.train()
    return runner


def infer(folder: Path) -> list[Row]:
    """Testing a Faster R-CNN R50-C4 on the drawn VOC2007, after a short training."""
    bfloat16.make_fast()
    _drawn(folder / "data")
    task = _protocol("voc_c4")
    with _default_trainer(task, folder) as trainer:
        training = _training(task, "bf16", folder)
        with closing(training._loader()) as batches:
            for number, batch in enumerate(itertools.islice(batches, LESSONS)):
                training._step(batch, number)
                training.scheduler.step()
        training._precise_bn()
        trainer._trainer.model.load_state_dict(training.model.state_dict())
        found: dict[str, dict[str, float]] = {}

        def ours() -> None:
            found["ours"] = _tested(training, folder / "data")

        def theirs() -> None:
            found["theirs"] = _inferred(trainer)

        row = faster("infer", "detectron2's inference_on_dataset, Faster R-CNN R50-C4, bf16", 1.5, ours, theirs)
    mine, theirs_ap = (float(found[whose]["AP"]) for whose in ("ours", "theirs"))
    apart = f"0.1 points of AP between {mine:.3f} here and {theirs_ap:.3f} there"
    return [row, cost("infer", apart, abs(mine - theirs_ap), 0.1, 1.0, row.memory)]


def _tested(training: Any, data: Path) -> dict[str, float]:
    from downstream import datasets, detection

    name = training.cfg.DATASETS.TEST[0]
    return detection._test(training.cfg, training.model, name, datasets.records(name, data), data, detection.TOGETHER)


def _inferred(trainer: Any) -> dict[str, float]:
    from detectron2 import evaluation

    cfg = trainer.cfg
    name = cfg.DATASETS.TEST[0]
    evaluator = evaluation.PascalVOCDetectionEvaluator(name)
    loader = trainer.build_test_loader(cfg, name)
    return dict(evaluation.inference_on_dataset(trainer._trainer.model, loader, evaluator)["bbox"])
