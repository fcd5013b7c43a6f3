"""The families of checkpoints, one row each: where the state dict is, the prefix, what tells it from the others, what is dropped.

The facts are those of the repository in the summary, read in the code that writes or loads its files; what was not confirmed
stands in `unverified`. To add a family, add a row here and a case to PUBLISHED in tests/bench/test_sources.py. Two rows may
have one name, for two forms of one family's files.

A pattern is a whole key; or the beginning of one, if it ends in a dot or a slash; or the end of one, if it starts with a star.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.layouts import BGR, CAFFE, DETECTRON, IMAGENET, LAB, LAYOUTS, SWAV, UNIT, Input, Layout


@dataclass(frozen=True)
class Source:
    """How one family writes a checkpoint.

    What DistributedDataParallel and torch.compile put in front of every key is taken off before keys are compared, and is
    optional everywhere; so is the level around the state dict.
    """

    name: str
    summary: str
    prefix: str  # of the backbone's keys as published, up to and with the last dot
    outer: tuple[str, ...]  # where the state dict is, "/" between levels; "" is the file itself
    has: tuple[str, ...]  # patterns that must all occur
    any: tuple[str, ...] = ()  # patterns of which one must occur
    lacks: tuple[str, ...] = ()  # patterns of which none may occur
    beside: tuple[str, ...] = ()  # keys of the file itself that must be there
    alone: tuple[str, ...] = ()  # keys of the file itself that must not
    order: tuple[str, str] | None = None  # two keys, the first of which must stand before the second
    heads: Mapping[str, str] = field(default_factory=dict)  # pattern: the reason it is dropped
    # the reason to drop what is outside the prefix or, without one, the layout; None: an error
    others: str | None = None
    layout: str = "torchvision"  # of bench.layouts
    input: Input = IMAGENET
    words: tuple[str, ...] = ()  # in the file's name or notes, they settle between families that fit equally
    said: bool = False  # only where one of the words is there
    variants: Mapping[str, str] = field(default_factory=dict)  # pattern: the variant it tells
    # how a detector's keys begin: what detectron2 has in the place of it
    detector: Mapping[str, str] = field(default_factory=dict)
    sidecar: str | None = None  # "bench", "timm", "transformers": only with this kind of .json beside the file
    asked: bool = False  # only with --from
    refused: str | None = None  # what the network is, where that is no ResNet on RGB images
    method: str | None = None  # that such a file was trained with
    counts: bool = False  # `epoch` is the number of finished epochs
    licence: str | None = None  # of the repository
    unverified: tuple[str, ...] = ()

    @property
    def inner(self) -> str:
        return self.prefix.removeprefix("module.")

    @property
    def stored(self) -> Layout:
        return LAYOUTS[self.layout]

    def traits(self) -> dict[str, Any]:
        """What is known before the file is read: the stem is read from its shapes."""
        return {**self.input.traits(), "stem": "7x7", "stride_in_1x1": self.stored.stride_in_1x1}


KEY_ENCODER = "momentum encoder: the query encoder is the one that was trained"
TARGET = "target network: the online network is the one that was trained"
HEAD = "projection head"
PREDICTOR = "prediction head"
CLASSIFIER = "classifier"
QUEUE = "queue of negatives"
PROTOTYPES = "prototypes"
JIGSAW = "head of the jigsaw branch"
OTHER = "outside the backbone"
UNIT_INPUT = "input: the repository's transforms end in ToTensor, with no mean and std, which the file does not say"

RESNET = ("conv1.weight", "bn1.weight", "layer4.")
PLAIN_ORDER = ("layer2.0.conv1.weight", "layer2.0.downsample.0.weight")
LIGHTNING = "pytorch-lightning_version"
# any of which tells
LIGHTNINGS = (
    LIGHTNING,
    "hyper_parameters",
    "optimizer_states",
    "lr_schedulers",
    "callbacks",
    "loops",
)
NOTED = ("author", "lemniscate")  # files that have torchvision's names and say that they are something else
MOCO_HEADS = {
    "encoder_q.fc.": HEAD,
    "encoder_k.": KEY_ENCODER,
    "queue": QUEUE,
    "queue_ptr": QUEUE,
}
MOCO_VARIANTS = {"encoder_q.fc.weight": "v1", "encoder_q.fc.0.weight": "v2"}
PYCONTRAST_HEADS = {"head.": HEAD, "head_jig.": JIGSAW}
SWAV_HEADS = {"projection_head.": HEAD, "prototypes.": PROTOTYPES}
OPENMMLAB_HEADS = {"neck.": HEAD, "head.": "head", "encoder_k.": KEY_ENCODER, "queue": QUEUE, "queue_ptr": QUEUE}
DENSE_QUEUES = {"queue2": "queue of dense negatives", "queue2_ptr": "queue of dense negatives"}
DETECTRON2_DETECTOR = {  # parts of detectron2's models, and what SoCo's converter leaves of their names
    **{part: part for part in ("backbone.", "proposal_generator.", "roi_heads.", "sem_seg_head.")},
    "fpn_": "backbone.fpn_",
    "box_head.": "roi_heads.box_head.",
}
SOCO_DETECTOR = {  # converter_detectron2/convert_detectron2_Head.py, called with 2 for the first level
    **{
        f"neck.{kind}_convs.{level}.{part}.": f"backbone.fpn_{name}{level + 2}.{norm}"
        for kind, name in (("lateral", "lateral"), ("fpn", "output"))
        for level in range(4)
        for part, norm in (("conv", ""), ("bn", "norm."))
    },
    **{
        f"head.{part}{number}.": f"roi_heads.box_head.conv{number}.{norm}"
        for number in range(1, 5)
        for part, norm in (("conv", ""), ("bn", "norm."))
    },
    "head.fc1.": "roi_heads.box_head.fc1.",
}
TENSORFLOW_HEADS = {
    **dict.fromkeys(
        ("*/Momentum", "*/momentum", "*/m", "*/v", "LARSOptimizer/", "SGD/", "Adam/"), "state of the optimizer"
    ),
    "head_supervised/": "classifier",
    "head_contrastive/": HEAD,
    "projection_head/": HEAD,
    "ema_model/": "moving average of the whole model",
    "global_step": "counter of steps",
    "iter": "counter of steps",
    "save_counter": "counter of checkpoints",
}

FAMILIES = (
    # --- this project, torchvision and what looks like it
    Source(
        name="bench",
        summary="this project's backbone.pth and converted files, with their .json beside them",
        prefix="",
        outer=("", "state_dict"),
        has=("bn1.weight", "layer4."),
        sidecar="bench",
    ),
    Source(
        name="bench",
        summary="a deep stem that `bench convert --to mmseg` wrote, with what it said of the file",
        prefix="",
        outer=("state_dict",),
        has=("stem.7.weight", "layer4."),
        layout="resnetv1c",
        sidecar="bench",
    ),
    Source(
        name="torchvision",
        summary="plain torchvision names, with or without fc: supervised weights, and what many projects extract",
        prefix="",
        outer=("", "state_dict", "model"),
        has=RESNET,
        lacks=("projection_head.", "prototypes."),
        alone=NOTED,
        order=PLAIN_ORDER,
        heads={"fc.": CLASSIFIER},
        licence="BSD-3-Clause",
    ),
    Source(
        name="timm",
        summary="pytorch-image-models (huggingface/pytorch-image-models): torchvision's names",
        prefix="",
        outer=("", "state_dict", "model"),
        has=(*RESNET, "fc.weight"),
        lacks=("projection_head.", "prototypes."),
        alone=NOTED,
        order=PLAIN_ORDER,
        heads={"fc.": CLASSIFIER},
        words=("timm",),
        licence="Apache-2.0",
        unverified=("mean and std: they are in the model's configuration, not in the file; ImageNet's are assumed",),
    ),
    *(
        Source(
            name="timm",
            summary=f"pytorch-image-models (huggingface/pytorch-image-models) {form}",
            prefix=prefix,
            outer=("",),
            has=(f"{prefix}bn1.weight", f"{prefix}layer4."),
            heads={f"{prefix}fc.": CLASSIFIER},
            sidecar="timm",
            licence="Apache-2.0",
        )
        for form, prefix in (("with its config.json", ""), ("in transformers' TimmWrapper", "timm_model."))
    ),
    Source(
        name="timm",
        summary="pytorch-image-models' c and d models: a deep stem, averaging shortcuts",
        prefix="",
        outer=("", "state_dict"),
        has=("conv1.0.weight", "bn1.weight", "layer4."),
        heads={"fc.": CLASSIFIER},
        licence="Apache-2.0",
        unverified=("mean and std: they are in the model's configuration, not in the file; ImageNet's are assumed",),
    ),
    Source(
        name="barlowtwins",
        summary="Barlow Twins, resnet50.pth (facebookresearch/barlowtwins): the backbone alone",
        prefix="",
        outer=("",),
        has=RESNET,
        lacks=("fc.", "projection_head.", "prototypes."),
        order=PLAIN_ORDER,
        words=("barlow", "barlowtwins"),
        method="barlowtwins",
        licence="MIT",
    ),
    Source(
        name="vicreg",
        summary="VICReg, resnet50.pth (facebookresearch/vicreg): the backbone alone",
        prefix="",
        outer=("",),
        has=RESNET,
        lacks=("fc.", "projection_head.", "prototypes."),
        order=PLAIN_ORDER,
        words=("vicreg",),
        method="vicreg",
        licence="MIT",
    ),
    Source(
        name="dino",
        summary="DINO, dino_resnet50_pretrain.pth (facebookresearch/dino): the backbone alone",
        prefix="",
        outer=("",),
        has=RESNET,
        lacks=("fc.", "projection_head.", "prototypes."),
        order=PLAIN_ORDER,
        words=("dino",),
        method="dino",
        licence="Apache-2.0",
    ),
    # --- contrastive learning with a momentum encoder
    Source(
        name="moco",
        summary="MoCo v1 and v2 as released (facebookresearch/moco)",
        prefix="module.encoder_q.",
        outer=("state_dict",),
        has=("encoder_q.conv1.weight", "queue"),
        alone=("best_acc",),
        heads=MOCO_HEADS,
        variants=MOCO_VARIANTS,
        words=("moco",),
        method="moco",
        counts=True,
    ),
    Source(
        name="clsa",
        summary="CLSA as released (maple-research-lab/CLSA): MoCo v2's keys, and best_acc where it was saved",
        prefix="module.encoder_q.",
        outer=("state_dict",),
        has=("encoder_q.conv1.weight", "encoder_q.fc.0.weight", "queue"),
        heads=MOCO_HEADS,
        words=("clsa",),
        method="clsa",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="pcl",
        summary="PCL v1 and v2 as released (salesforce/PCL): MoCo's keys",
        prefix="module.encoder_q.",
        outer=("state_dict",),
        has=("encoder_q.conv1.weight", "queue"),
        alone=("best_acc",),
        heads=MOCO_HEADS,
        variants=MOCO_VARIANTS,
        words=("pcl",),
        method="pcl",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="msf",
        summary="MSF (UMBCvision/MSF): each encoder in a DataParallel of its own",
        prefix="encoder_q.module.",
        outer=("state_dict",),
        has=("encoder_q.module.conv1.weight", "encoder_t.module.", "predict_q.module."),
        heads={
            "encoder_q.module.fc.": HEAD,
            "encoder_t.module.": TARGET,
            "predict_q.module.": PREDICTOR,
            "queue": "queue of targets",
            "queue_ptr": "queue of targets",
            "labels": "labels of the queue's targets",
        },
        method="msf",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="mocov3",
        summary="MoCo v3 with a ResNet-50 (facebookresearch/moco-v3)",
        prefix="module.base_encoder.",
        outer=("state_dict",),
        has=("base_encoder.conv1.weight", "momentum_encoder."),
        heads={
            "base_encoder.fc.": HEAD,
            "momentum_encoder.": "momentum encoder: the base encoder is the one that was trained",
            "predictor.": PREDICTOR,
        },
        method="moco_v3",
        counts=True,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="pixpro",
        summary="PixPro as trained or published (zdaxie/PixPro)",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "projector.linear1."),
        lacks=("queue", "neck."),
        heads={
            "encoder.fc.": CLASSIFIER,
            "encoder_k.": KEY_ENCODER,
            "projector.": HEAD,
            "projector_k.": HEAD + " of the momentum encoder",
            "value_transform.": "pixel propagation module",
            "projector_instance.": "instance branch",
            "projector_instance_k.": "instance branch",
            "predictor.": "instance branch",
        },
        method="pixpro",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="soco",
        summary="SoCo as trained and published (hologerry/SoCo): PixPro's names, and a detector's neck and head in its FPN forms",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "projector.linear1.", "predictor.linear1."),
        any=("queue", "neck.lateral_convs.3."),  # of C4; of FPN from p2 on, as every script has it
        lacks=("value_transform.",),
        heads={
            "encoder_k.": KEY_ENCODER,
            "projector.": HEAD,
            "projector_k.": HEAD + " of the momentum encoder",
            "predictor.": PREDICTOR,
            "neck_k.": "neck of the momentum encoder",
            "head_k.": "detector's head of the momentum encoder",
            "queue": QUEUE,
            "queue_ptr": QUEUE,
        },
        detector=SOCO_DETECTOR,
        method="soco",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="pixpro-finetuned",
        summary="a PixPro backbone after fine-tuning (zdaxie/PixPro, main_linear.py)",
        prefix="module.base.",
        outer=("model",),
        has=("base.conv1.weight", "base.layer4."),
        beside=("args",),
        heads={"fc.": CLASSIFIER, "base.fc.": CLASSIFIER, "classifier.": CLASSIFIER},
        licence="MIT",
    ),
    Source(
        name="pic",
        summary="PIC (bl0/PIC): parametric instance classification",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "sim_matrix"),
        heads={
            "encoder.fc.": HEAD,
            "encoder.fc1.": HEAD,
            "encoder.fc2.": HEAD,
            "sim_matrix": "one weight vector an image",
        },
        method="pic",  # `epoch` counts windows of the sliding sampler, where it is used (main_pretrain.py)
    ),
    Source(
        name="bl0",
        summary="InstDisc and MoCo of the PIC repository (bl0/PIC)",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight",),
        any=("memory", "encoder_k."),
        lacks=("projector.", "sim_matrix", "head."),
        heads={
            "encoder.fc.": HEAD,
            "encoder.fc1.": HEAD,
            "encoder.fc2.": HEAD,
            "encoder_k.": KEY_ENCODER,
            "queue": QUEUE,
            "queue_ptr": QUEUE,
            "memory": "memory bank",
        },
        counts=True,
    ),
    *(
        Source(
            name="infomin",
            summary=f"InfoMin of PyContrast {form}",
            prefix="module.encoder.",
            outer=("model",),
            has=("encoder.conv1.weight", "head.0.weight", "head_jig.fc1.0.weight"),
            beside=beside,
            alone=alone,
            heads=PYCONTRAST_HEADS,
            words=("infomin",),
            said=said,
            method="infomin",
            counts=True,
            licence="BSD-2-Clause",
        )
        for form, beside, alone, said in (
            ("(HobbitLong/PyContrast)", ("model_ema",), (), False),
            ("without its momentum encoder, as published", (), ("model_ema", "contrast"), False),
            ("without its momentum encoder, by the file's name", (), ("model_ema",), True),
        )
    ),
    Source(
        name="pirl",
        summary="PIRL of PyContrast (HobbitLong/PyContrast)",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "head.0.weight", "head_jig."),
        alone=("model_ema",),
        heads=PYCONTRAST_HEADS,
        words=("pirl",),
        method="pirl",
        counts=True,
        licence="BSD-2-Clause",
    ),
    Source(
        name="instdis",
        summary="InstDis of PyContrast (HobbitLong/PyContrast)",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "head.0.weight"),
        lacks=("head_jig.", "head.2."),
        alone=("model_ema",),
        heads=PYCONTRAST_HEADS,
        words=("insdis", "instdis", "instdisc"),
        method="instdis",
        counts=True,
        licence="BSD-2-Clause",
    ),
    *(
        Source(
            name="pycontrast-moco",
            summary=f"MoCo of PyContrast {form}",
            prefix="module.encoder.",
            outer=("model",),
            has=("encoder.conv1.weight", "head.0.weight"),
            lacks=("head_jig.",),
            beside=beside,
            alone=alone,
            heads=PYCONTRAST_HEADS,
            words=words,
            said=bool(words),
            variants={"head.2.weight": "v2"},
            counts=True,
            licence="BSD-2-Clause",
        )
        for form, beside, alone, words in (
            ("(HobbitLong/PyContrast)", ("model_ema",), (), ()),
            ("without its momentum encoder, by the file's name", (), ("model_ema",), ("moco", "mocov1", "mocov2")),
        )
    ),
    *(
        Source(
            name="cmc",
            summary=f"CMC ({repository}): one network for the L and one for the ab channels of a picture in Lab; not converted",
            prefix=f"module.{first}.",
            outer=("model",),
            has=(f"{first}.conv1.weight", f"{second}.conv1.weight"),
            heads={
                f"{second}.": "network of the ab channels",
                f"{first}.fc.": HEAD,
                "head1.": HEAD,
                "head2.": HEAD,
                "head1_jig.": JIGSAW,
                "head2_jig.": JIGSAW,
            },
            input=LAB,
            refused=(
                "CMC's two networks, one for the L and one for the ab channels of a picture in Lab, whose features are joined"
                " after pooling: neither sees RGB, and no single ResNet computes the two"
            ),
            method="cmc",
            counts=True,
            licence="BSD-2-Clause",
        )
        for repository, first, second in (
            ("HobbitLong/PyContrast, each of half width", "encoder1", "encoder2"),
            ("HobbitLong/CMC", "l_to_ab", "ab_to_l"),
        )
    ),
    Source(
        name="lemniscate",
        summary="InstDisc as released (zhirongw/lemniscate.pytorch)",
        prefix="module.",
        outer=("state_dict",),
        has=(*RESNET, "fc.weight"),
        beside=("lemniscate",),
        heads={"fc.": HEAD},
        method="instdis",
        counts=True,
    ),
    # --- without negatives, clustering, redundancy reduction
    Source(
        name="simsiam",
        summary="SimSiam as released (facebookresearch/simsiam)",
        prefix="module.encoder.",
        outer=("state_dict",),
        has=("encoder.conv1.weight", "encoder.fc.0.weight", "predictor.0.weight"),
        lacks=("encoder_k.", "projector."),
        heads={"encoder.fc.": HEAD, "predictor.": PREDICTOR},
        method="simsiam",
        counts=True,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="byol",
        summary="BYOL as released (deepmind/deepmind-research, byol): a pickle of JAX and Haiku",
        prefix="",
        outer=("experiment_state",),
        has=("online_params/", "online_state/"),
        any=("*/initial_conv/w", "*/initial_conv_1/w"),
        heads={
            "target_params/": TARGET,
            "target_state/": TARGET,
            "opt_state/": "state of the optimizer",
            "online_params/projector/": HEAD,
            "online_state/projector/": HEAD,
            "online_params/predictor/": PREDICTOR,
            "online_state/predictor/": PREDICTOR,
            "online_params/classifier/": CLASSIFIER,
            "*_ema/hidden": "running average before its correction: the corrected one is kept",
            "*_ema/counter": "counter of a running average",
        },
        layout="haiku",
        licence="CC-BY-NC-4.0",
        method="byol",
        unverified=("the keys are those that the authors' code writes; no released file was opened",),
    ),
    Source(
        name="swav",
        summary="SwAV as released or trained (facebookresearch/swav)",
        prefix="module.",
        outer=("", "state_dict"),
        has=("conv1.weight", "layer4.", "projection_head.", "prototypes.weight"),
        heads=SWAV_HEADS,
        input=SWAV,
        words=("swav",),
        method="swav",
        counts=True,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="swav-finetuned",
        summary="a backbone of SwAV's repository after fine-tuning on few labels (facebookresearch/swav, eval_semisup.py)",
        prefix="module.",
        outer=("state_dict",),
        has=("conv1.weight", "layer4.", "projection_head.weight"),
        lacks=("prototypes.",),
        beside=("best_acc",),
        heads={"projection_head.": CLASSIFIER},
        input=SWAV,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="deepcluster-v2",
        summary="DeepCluster-v2 as released or trained (facebookresearch/swav)",
        prefix="module.",
        outer=("", "state_dict"),
        has=("conv1.weight", "layer4.", "projection_head.", "prototypes.prototypes0.weight"),
        heads=SWAV_HEADS,
        input=SWAV,
        words=("deepclusterv2", "deepcluster"),
        method="deepcluster_v2",
        counts=True,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="sela-v2",
        summary="SeLa-v2 as released (facebookresearch/swav)",
        prefix="module.",
        outer=("", "state_dict"),
        has=("conv1.weight", "layer4.", "projection_head."),
        any=("prototypes.weight", "prototypes.prototypes0.weight"),
        heads=SWAV_HEADS,
        input=SWAV,
        words=("selav2", "sela"),
        method="sela_v2",
        licence="CC-BY-NC-4.0",
        unverified=("the code was not published: heads and std are taken to be SwAV's",),
    ),
    Source(
        name="barlowtwins",
        summary="Barlow Twins' training checkpoint (facebookresearch/barlowtwins)",
        prefix="module.backbone.",
        outer=("model",),
        has=("backbone.conv1.weight", "projector.", "bn.running_mean"),
        heads={"projector.": HEAD, "bn.": "normalisation of the projections"},
        method="barlowtwins",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="vicreg",
        summary="VICReg's training checkpoint, *_fullckpt.pth (facebookresearch/vicreg)",
        prefix="module.backbone.",
        outer=("model",),
        has=("backbone.conv1.weight", "projector.0.weight", "projector.1.weight", "projector.6.weight"),
        lacks=("bn.running_mean", "predictor.", "maps_projector.", "classifier."),
        heads={"projector.": HEAD},
        method="vicreg",
        counts=True,
        licence="MIT",
    ),
    Source(
        name="vicregl",
        summary="VICRegL's training checkpoint (facebookresearch/VICRegL)",
        prefix="module.backbone.",
        outer=("model",),
        has=("backbone.conv1.weight", "maps_projector.0.weight"),
        heads={"projector.": HEAD, "maps_projector.": "projection head of the maps", "classifier.": CLASSIFIER},
        method="vicregl",
        counts=True,
        licence="CC-BY-NC-4.0",
    ),
    Source(
        name="dino",
        summary="DINO's training checkpoint with a ResNet-50 (facebookresearch/dino): the teacher, as its authors evaluate",
        prefix="module.backbone.",
        outer=("teacher",),
        has=("backbone.conv1.weight",),
        any=("head.last_layer.", "head.mlp."),
        beside=("student",),
        heads={"head.": HEAD},
        method="dino",
        counts=True,
        licence="Apache-2.0",
    ),
    Source(
        name="dino-student",
        summary="the student in DINO's training checkpoint, where it is asked for with --from",
        prefix="module.backbone.",
        outer=("student",),
        has=("backbone.conv1.weight", "head."),
        heads={"head.": HEAD},
        asked=True,
        method="dino",
        counts=True,
        licence="Apache-2.0",
    ),
    *(
        Source(
            name="obow",
            summary=f"OBoW (valeoai/obow): {form}",
            prefix=f"{prefix}_feature_blocks.",
            outer=("network",),
            has=(f"{prefix}_feature_blocks.0.Conv.weight", f"{prefix}_feature_blocks.4.0.conv1.weight"),
            heads={"feature_extractor_teacher.": "teacher: the student is the one that its authors evaluate"},
            others=OTHER,
            layout="obow",
            method="obow",
            counts=True,
            licence="Apache-2.0",
        )
        for form, prefix in (("the whole model", "feature_extractor."), ("the student alone, as it was trained", ""))
    ),
    # --- SimCLR, from TensorFlow
    Source(
        name="simclr",
        summary="SimCLR as released (google-research/simclr): a TensorFlow checkpoint, named by its .index file or folder",
        prefix="base_model/",
        outer=("",),
        has=("base_model/conv2d/kernel", "base_model/batch_normalization/gamma"),
        lacks=("head_contrastive/", "ema_model/"),
        heads=TENSORFLOW_HEADS,
        layout="tensorflow",
        input=UNIT,
        method="simclr",
        licence="Apache-2.0",
    ),
    Source(
        name="simclrv2",
        summary="SimCLRv2 without selective kernels (google-research/simclr): a TensorFlow checkpoint",
        prefix="base_model/",
        outer=("",),
        has=("base_model/conv2d/kernel", "base_model/batch_normalization/gamma"),
        any=("head_contrastive/", "ema_model/"),
        heads=TENSORFLOW_HEADS,
        layout="tensorflow",
        input=UNIT,
        method="simclr_v2",
        licence="Apache-2.0",
    ),
    Source(
        name="simclr-tf2",
        summary="SimCLR of the TensorFlow 2 code (google-research/simclr tf2): a SavedModel's folder, or a checkpoint's .index file",
        prefix="resnet/",
        outer=("",),
        has=("resnet/", "*/conv2d/kernel", "*/moving_variance"),
        lacks=("projection_head/",),
        heads=TENSORFLOW_HEADS,
        layout="tensorflow",
        input=UNIT,
        method="simclr",
        licence="Apache-2.0",
        unverified=("the names are those that the authors' code writes; no released file was opened",),
    ),
    Source(
        name="simclrv2-tf2",
        summary="SimCLRv2 of the TensorFlow 2 code without selective kernels: a SavedModel's folder, or a checkpoint's .index file",
        prefix="resnet/",
        outer=("",),
        has=("resnet/", "*/conv2d/kernel", "*/moving_variance"),
        any=("projection_head/",),
        heads=TENSORFLOW_HEADS,
        layout="tensorflow",
        input=UNIT,
        method="simclr_v2",
        licence="Apache-2.0",
        unverified=("the names are those that the authors' code writes; no released file was opened",),
    ),
    Source(
        name="simclr-pytorch",
        summary="SimCLR after tonylins/simclr-converter: torchvision's names, each block's shortcut first",
        prefix="",
        outer=("state_dict",),
        has=(*RESNET, "fc.weight"),
        lacks=("projection_head.", "prototypes."),
        alone=NOTED,
        order=(PLAIN_ORDER[1], PLAIN_ORDER[0]),
        heads={"fc.": CLASSIFIER},
        input=UNIT,
        unverified=("SimCLR, and pixels from 0 to 1: told by the order of the keys alone",),
        method="simclr",
        licence="Apache-2.0",
    ),
    Source(
        name="spijkervet",
        summary="SimCLR after Spijkervet/SimCLR: checkpoint_EPOCH.tar, the model's state_dict() alone",
        prefix="encoder.",
        outer=("",),
        has=("encoder.conv1.weight", "encoder.layer4.", "projector.0.weight", "projector.2.weight"),
        lacks=(
            "projector.0.bias",
            "projector.1.",
            "projector.2.bias",
            "projector.3.",
            "encoder.fc.",
            "encoder_k.",
            "momentum_encoder.",
            "predictor.",
            "classifier.",
            "queue",
        ),
        heads={"projector.": HEAD},
        input=UNIT,
        method="simclr",
        licence="MIT",
        unverified=(UNIT_INPUT,),
    ),
    Source(
        name="sthalles",
        summary="SimCLR after sthalles/SimCLR: checkpoint_EPOCH.pth.tar, the projection head in the place of fc",
        prefix="backbone.",
        outer=("state_dict",),
        has=("backbone.conv1.weight", "backbone.fc.0.bias", "backbone.fc.2.bias"),
        lacks=(
            "backbone.fc.1.",
            "backbone.fc.3.",
            "projector.",
            "projection_head.",
            "predictor.",
            "prediction_head.",
            "prototypes.",
            "classifier.",
            "head.",
            "neck.",
            "queue",
        ),
        beside=("arch", "epoch", "optimizer"),
        alone=("meta",),
        heads={"backbone.fc.": HEAD},
        input=UNIT,
        method="simclr",
        counts=True,
        licence="MIT",
        unverified=(UNIT_INPUT,),
    ),
    Source(
        name="simclrv2-pytorch",
        summary="SimCLRv2 after Separius/SimCLRv2-Pytorch",
        prefix="",
        outer=("resnet",),
        has=("net.0.0.weight", "net.0.1.0.weight", "net.4.blocks."),
        lacks=("net.1.blocks.0.net.2.main_conv.0.weight",),
        heads={"fc.": CLASSIFIER},
        layout="separius",
        input=UNIT,
        method="simclr_v2",
        licence="GPL-3.0",
    ),
    # --- frameworks
    Source(
        name="densecl",
        summary="DenseCL as trained (WXinlong/DenseCL)",
        prefix="encoder_q.0.",
        outer=("state_dict",),
        has=("encoder_q.0.conv1.weight", "queue2"),
        heads={"encoder_q.1.": HEAD, "backbone.": "the query encoder again", **OPENMMLAB_HEADS, **DENSE_QUEUES},
        method="densecl",
        licence="GPL-3.0",
    ),
    Source(
        name="densecl",
        summary="DenseCL's extracted backbone (WXinlong/DenseCL, tools/extract_backbone_weights.py)",
        prefix="",
        outer=("state_dict",),
        has=RESNET,
        beside=("author",),
        heads={"fc.": CLASSIFIER},
        words=("densecl",),
        method="densecl",
        licence="GPL-3.0",
    ),
    *(
        Source(
            name=name,
            summary=f"{spoken} as trained, with a Sequential of backbone and neck (MoCo, BYOL, SimSiam)",
            prefix=prefix,
            outer=("state_dict",),
            has=(f"{prefix}conv1.weight",),
            lacks=("queue2", "projector.", "predictor."),
            heads={prefix.replace("0.", "1."): HEAD, "target_net.": TARGET, **OPENMMLAB_HEADS},
            others=OTHER,
            words=(name,),
            licence="Apache-2.0",
        )
        for name, spoken in (("openselfsup", "OpenSelfSup"), ("mmselfsup", "MMSelfSup"))
        for prefix in ("encoder_q.0.", "online_net.0.", "encoder.0.")
    ),
    *(
        Source(
            name=name,
            summary=f"{spoken}: backbone, neck and head",
            prefix="backbone.",
            outer=("state_dict",),
            has=("backbone.conv1.weight",),
            any=parts,
            lacks=("encoder_q.0.", "online_net.0.", "encoder.0.", *others),
            beside=beside,
            alone=alone,
            heads={**OPENMMLAB_HEADS, **DENSE_QUEUES, "target_net.": TARGET},
            others=OTHER,
            words=(name,),
            licence="Apache-2.0",
        )
        for parts, others, beside, alone in (
            ((), (), ("meta",), ()),
            (("neck.", "head.fc."), ("projector.", "projection_head.", "classifier."), (), ("meta", LIGHTNING)),
        )
        for name, spoken in (
            ("mmselfsup", "MMSelfSup (open-mmlab/mmselfsup)"),
            ("mmpretrain", "MMPretrain and MMClassification (open-mmlab/mmpretrain)"),
            ("openselfsup", "OpenSelfSup (open-mmlab/OpenSelfSup)"),
        )
    ),
    *(
        Source(
            name=name,
            summary=f"{spoken}'s extracted backbone, with its author",
            prefix="",
            outer=("state_dict",),
            has=RESNET,
            beside=("author",),
            heads={"fc.": CLASSIFIER},
            words=(name,),
            licence="Apache-2.0",
        )
        for name, spoken in (("openselfsup", "OpenSelfSup"), ("mmselfsup", "MMSelfSup"))
    ),
    *(
        Source(
            name=name,
            asked=asked,
            summary=f"{spoken}'s ResNetV1c and V1d: a deep stem, averaging shortcuts in V1d",
            prefix=prefix,
            outer=("", "state_dict"),
            has=(f"{prefix}{first}", f"{prefix}{last}", f"{prefix}layer4."),
            heads={
                "neck.": HEAD,
                "head.": "head",
                "decode_head.": "head",
                "auxiliary_head.": "head",
                "fc.": CLASSIFIER,
            },
            layout=layout,
            licence="Apache-2.0",
            unverified=("mean and std: they are in the configuration, not in the file; ImageNet's are assumed",),
        )
        for name, asked, spoken, first, last, layout in (
            (
                "mmpretrain",
                False,
                "MMPretrain (open-mmlab/mmpretrain)",
                "stem.0.conv.weight",
                "stem.2.bn.weight",
                "mmpretrain",
            ),
            (
                "mmseg",
                False,
                "MMSegmentation (open-mmlab/mmsegmentation)",
                "stem.0.weight",
                "stem.7.weight",
                "resnetv1c",
            ),
            ("mmpretrain", True, "MMSegmentation", "stem.0.weight", "stem.7.weight", "resnetv1c"),
        )
        for prefix in ("", "backbone.")
    ),
    *(
        Source(
            name="vissl",
            summary="VISSL (facebookresearch/vissl): trunk and heads",
            prefix=prefix,
            outer=("classy_state_dict/base_model/model/trunk", "model_state_dict", "state_dict", ""),
            has=(f"{prefix}conv1.weight", f"{prefix}bn1.weight", f"{prefix}layer4."),
            heads={"heads.": "head", f"{prefix}fc.": CLASSIFIER},
            licence="MIT",
            unverified=(
                "channel order: some models of the zoo come from Caffe2 with BGR, which the file does not say",
            ),
        )
        for around in ("", "base_model.")  # the second where VISSL evaluates the features
        for prefix in (f"{around}_feature_blocks.", f"trunk.{around}_feature_blocks.")
    ),
    Source(
        name="solo-learn",
        summary="solo-learn (vturrisi/solo-learn), a checkpoint of Lightning",
        prefix="backbone.",
        outer=("state_dict",),
        has=("backbone.conv1.weight",),
        any=(
            "projector.",
            "predictor.",
            "momentum_backbone.",
            "momentum_projector.",
            "classifier.",
            "prototypes.",
            "head.mlp.",
        ),
        lacks=("projection_head.", "prediction_head."),
        beside=(LIGHTNING,),
        alone=("meta",),
        heads={
            "backbone.fc.": CLASSIFIER,
            "projector.": HEAD,
            "predictor.": PREDICTOR,
            "classifier.": CLASSIFIER,
            "momentum_backbone.": "momentum encoder: the backbone is the one that was trained",
        },
        others=OTHER,
        words=("solo", "solo-learn"),
        licence="MIT",
        unverified=("that solo-learn wrote it: any module of Lightning with a backbone and a projector has such keys",),
    ),
    Source(
        name="solo-learn",
        summary="solo-learn before its backbone had that name",
        prefix="encoder.",
        outer=("state_dict",),
        has=("encoder.conv1.weight",),
        any=("projector.", "classifier.", "momentum_encoder."),
        lacks=("encoder.fc.0.weight", "encoder_k.", "projection_head."),
        beside=(LIGHTNING,),
        alone=("meta",),
        heads={
            "encoder.fc.": CLASSIFIER,
            "projector.": HEAD,
            "predictor.": PREDICTOR,
            "classifier.": CLASSIFIER,
            "momentum_encoder.": "momentum encoder: the encoder is the one that was trained",
        },
        others=OTHER,
        licence="MIT",
    ),
    *(
        Source(
            name="lightly",
            summary=f"lightly (lightly-ai/lightly), a checkpoint of Lightning: {form}{era}",
            prefix=prefix,
            outer=("state_dict",),
            has=(f"{prefix}{first}", *has),
            any=(
                "projection_head.",
                "prediction_head.",
                "online_classifier.",
                "backbone_momentum.",
                "teacher_backbone.",
                "student_backbone.",
                "query_backbone.",
                "key_backbone.",
            ),
            lacks=("projector.", *lacks),
            beside=() if era else (LIGHTNING,),  # today's names may be anybody's
            alone=("meta",),
            heads={
                f"{prefix}fc.": CLASSIFIER,
                **copies,
                "projection_head.": HEAD,
                "prediction_head.": PREDICTOR,
                "online_classifier.": CLASSIFIER,
                "backbone_momentum.": KEY_ENCODER,
                "key_backbone.": KEY_ENCODER,
            },
            others=OTHER,
            layout=layout,
            licence="MIT",
        )
        for form, first, layout in (
            ("torchvision's names", "conv1.weight", "torchvision"),
            ("the children of a ResNet in a Sequential", "0.weight", "sequential"),
        )
        for era, prefix, has, lacks, copies in (
            (
                "",
                "backbone.",
                (),
                ("query_backbone.", "student_prediction_head."),
                {
                    "student_backbone.": "student: the backbone is its moving average, as lightly evaluates it",
                    "teacher_backbone.": KEY_ENCODER,
                },
            ),
            (
                ", its example of DINO",
                "teacher_backbone.",
                ("student_backbone.", "student_head."),
                ("backbone.",),
                {
                    "student_backbone.": "student: the teacher is its moving average, as DINO's authors evaluate it",
                    "student_head.": HEAD,
                    "teacher_head.": HEAD,
                },
            ),
            (", MoCo v2 before February 2024", "query_backbone.", ("backbone.",), (), {"backbone.": KEY_ENCODER}),
            (
                ", BYOL before February 2024",
                "student_backbone.",
                ("backbone.", "student_prediction_head."),
                (),
                {"backbone.": TARGET, "student_projection_head.": HEAD, "student_prediction_head.": PREDICTOR},
            ),
        )
    ),
    *(
        Source(
            name="transformers",
            summary="Hugging Face transformers' ResNet (ResNetModel, ResNetForImageClassification)",
            prefix=prefix,
            outer=("", "state_dict"),
            has=(f"{prefix}embedder.embedder.convolution.weight", f"{prefix}encoder.stages."),
            heads={"classifier.": CLASSIFIER},
            layout="transformers",
            licence="Apache-2.0",
            unverified=("mean and std, where no preprocessor_config.json is beside the file: ImageNet's are assumed",),
        )
        for prefix in ("resnet.", "")
    ),
    Source(
        name="detectron2",
        summary="a torchvision-style ResNet under detectron2's names: bench convert, the converters of MoCo, PixPro and SoCo",
        prefix="",
        outer=("model",),
        has=("stem.conv1.weight", "stem.conv1.norm.weight", "res5."),
        heads={"stem.fc.": "classifier or projection head"},
        detector=DETECTRON2_DETECTOR,
        layout="detectron2",
        licence="Apache-2.0",
    ),
    Source(
        name="msra",
        summary="MSRA's ResNets of detectron2's model zoo, and of Detectron's: Caffe2's names, BGR, the stride in the 1x1",
        prefix="",
        outer=("", "blobs", "model"),
        has=("conv1_w", "res_conv1_bn_s", "res2_0_branch2a_w"),
        any=("conv1_b", "fc1000_w"),  # FAIR's self-supervised files for Detectron have neither, and stride in the 3x3
        lacks=("res_conv1_bn_riv",),
        heads={
            "conv1_b": "bias of the stem's convolution, which detectron2 leaves out too",
            "fc1000_w": CLASSIFIER,
            "fc1000_b": CLASSIFIER,
            "*_momentum": "state of the optimizer",
        },
        layout="caffe2_affine",
        input=CAFFE,
        method="supervised",
        licence="CC-BY-SA-3.0",
    ),
    *(
        Source(
            name=name,
            summary=f"{spoken} in torchvision's names (MMDetection's detectron2pytorch.py), by the file's name",
            prefix="",
            outer=("state_dict", ""),
            has=RESNET,
            heads={"conv1.bias": "bias of the stem's convolution, which OpenMMLab leaves out too", "fc.": CLASSIFIER},
            layout="torchvision_1x1",
            input=given,
            words=words,
            said=True,
            method="supervised",
        )
        for name, spoken, given, words in (
            (
                "msra",
                "OpenMMLab's resnet50_msra and resnet101_msra: MSRA's ResNets",
                CAFFE,
                ("resnet50_msra-", "resnet101_msra-"),
            ),
            (
                "openmmlab-caffe",
                "OpenMMLab's resnet50_caffe and resnet101_caffe: Detectron's ResNets",
                DETECTRON,
                ("resnet50_caffe-", "resnet101_caffe-"),
            ),
        )
    ),
    *(
        Source(
            name="goyal19",
            summary="FAIR's self-supervision benchmark (facebookresearch/fair_self_supervision_benchmark): Caffe2's names, BGR",
            prefix="",
            outer=("blobs", ""),
            has=(f"conv1{tower}_w", f"res_conv1_bn{tower}_riv", f"res2_0_branch2a{tower}_w"),
            heads={
                "*_momentum": "state of the optimizer",
                **{
                    f"*_bn_s{n}_{leaf}": "another tower's norm" for n in range(1, 9) for leaf in ("s", "b", "rm", "riv")
                },
            },
            others="outside the network",
            layout="caffe2",
            input=BGR,
            method=method,
            licence="CC-BY-NC-4.0",
        )
        for tower, method in (("", None), ("_s0", "jigsaw"))
    ),
)

GENERIC = Source(
    name="generic",
    summary="home-made code: the only prefix in the file that holds a whole ResNet, taken with a warning",
    prefix="",
    outer=("",),
    has=(),
    unverified=("channel order, mean and std: ImageNet's are assumed",),
)


def listed() -> list[dict[str, Any]]:
    """Every family once, with its traits: `bench list sources --json`."""
    rows: dict[str, dict[str, Any]] = {}
    for source in (*FAMILIES, GENERIC):
        row = rows.setdefault(
            source.name,
            {
                "name": source.name,
                "summary": source.summary,
                "forms": [],
                "traits": source.traits(),
                "licence": source.licence,
                "unverified": [],
                "note": source.stored.note,
            },
        )
        row["forms"].append({"outer": list(source.outer), "prefix": source.prefix, "layout": source.layout})
        row["unverified"] += [text for text in source.unverified if text not in row["unverified"]]
    return list(rows.values())
