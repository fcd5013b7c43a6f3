"""The commands. One short function each; what is heavy is imported inside it, so that `bench --help` costs no framework.

Exit codes: 0 done, 1 the work failed, 2 the call was wrong. Results go to standard output, progress to standard error.
"""

import gc
import json as jsonlib
import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from bench import __version__, catalog, records

app = typer.Typer(
    name="bench",
    help="Pretrain visual backbones, convert anybody's weights, fine-tune to the papers' letter, print the papers' tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(no_args_is_help=True, help="Draw small datasets, or check the ones you have.")
app.add_typer(data_app, name="data")
app.add_typer(records.app, name="results")


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output and nothing else there.")
]


ScaleOption = Annotated[
    Literal["paper", "mini"], typer.Option(help="paper: the published recipe. mini: the same for minutes on two cores.")
]
DataOption = Annotated[
    Path | None, typer.Option(help="Folder with VOC2007/, coco/, ... Default: $DETECTRON2_DATASETS, then ./datasets.")
]
Family = Annotated[
    str | None, typer.Option("--from", metavar="FAMILY", help="Say what the file is (bench list sources).")
]
ScaleBatch = Annotated[
    bool,
    typer.Option(
        "--scale-batch",
        help="Keep the images of a process as on the papers' 8 GPUs: batch and learning rate follow the number of processes by "
        "the linear rule, iterations inversely. Every number changed is said; the record is nonstandard.",
    ),
]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="A checkpoint of any family; or its address: https://..., torchvision://resnet50, "
        "detectron2://ImageNetPretrained/MSRA/R-50.pkl, timm/NAME, hf-hub:OWNER/NAME; or the name of a run in runs/.",
    ),
]
AllowMissing = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-missing",
        metavar="PATTERN",
        help="Names (torchvision's) that may be absent, such as 'layer4.2.bn3.*'; may be repeated; never a whole stage.",
    ),
]
Changes = Annotated[list[str] | None, typer.Argument(metavar="[KEY VALUE]...", help="Changes to the recipe.")]


# Variables of the environment, torchrun's and our own, that hold a number: its kind, and the smallest.
NUMBERS: dict[str, tuple[type, int]] = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "BENCH_WORKERS", "BENCH_CACHE_BYTES"), (int, 0)),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT"), (int, 1)),
    "BENCH_SAVE_SECONDS": (float, 0),
}
LATER = 3.0  # seconds that any but the first of several processes waits before it says why it ends

INTERRUPTED = "bench: interrupted; the same call goes on"


def first() -> bool:
    """Whether this process is the one of torchrun's that speaks; so is one whose rank is no number."""
    rank = os.environ.get("RANK", "0")
    return not rank.strip().isdecimal() or int(rank) == 0


def say(line: str) -> None:
    """Progress, for a person: one line on standard error."""
    if first():
        print(line, file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A line that no name in a file or of a file can break or use to command a terminal. Spaces of any width and joiners stay."""

    def harmless(c: str) -> bool:
        return c.isprintable() or unicodedata.category(c) == "Zs" or c in "\u00ad\u200c\u200d"

    return text if text.isprintable() else "".join(c if harmless(c) else ascii(c)[1:-1] for c in text)


def put(line: str) -> None:
    """A line of a report, on standard output."""
    print(printable(line))


def pairs(words: list[str] | None, **options: Any) -> dict[str, str]:
    """KEY=VALUE and KEY VALUE alike. Raises ValueError for a key without a value or with two, of which one may be an option's."""
    found: dict[str, str] = {}
    rest = list(words or [])
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        if not equals:
            if not rest:
                raise ValueError(f"expected KEY=VALUE or KEY VALUE, found {key!r} without a value")
            value = rest.pop(0)
        if key in found:
            raise ValueError(f"expected one value of {key}, found {found[key]} and {value}")
        found[key] = value
    for key, value in options.items():
        if value and key in found:
            raise ValueError(f"expected one value of {key}, found {found[key]} and --{key.replace('_', '-')} {value}")
    return found


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"bench {__version__}")
        raise typer.Exit
    for name, (kind, least) in NUMBERS.items():
        value = os.environ.get(name, str(least))
        try:
            fine = kind(value) >= least
        except ValueError:
            fine = False
        if not fine:
            what = f"expected a {'whole ' if kind is int else ''}number, {least} or more, in ${name}"
            raise ValueError(f"{what}, found {value!r}: unset it or correct it")
    rank, size = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if rank >= size:  # such a process would speak, write and wait for nobody
        raise ValueError(
            f"expected $RANK below $WORLD_SIZE, found {rank} and {size}: set both for each process, as torchrun does, or unset RANK"
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Everything is written here.")] = Path("runs/demo"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 2, help="Of the drawn data, the pretraining and the first trial.")
    ] = 0,
    all_tasks: Annotated[
        bool, typer.Option("--all-tasks", help="Instead: one trial of every task at mini scale, into OUT/all.")
    ] = False,
) -> None:
    """The whole journey on embedded data, in minutes on a CPU: draw, pretrain, convert, transfer, tables.

    Examples:

      bench demo

      bench demo --all-tasks
    """
    from bench import demo

    try:
        if all_tasks:
            demo.run_all(out / "all", seed, say)
        else:
            demo.run(out, seed, say)
    except KeyboardInterrupt:  # of which typer says nothing
        say(INTERRUPTED)
        raise typer.Exit(130) from None


@app.command()
def pretrain(
    method: Annotated[str, typer.Argument(help="A name of `bench list methods`.")],
    data: Annotated[Path, typer.Option(help="A folder of images; class folders for `supervised`.")],
    changes: Changes = None,
    arch: Annotated[
        str, typer.Option(help="A ResNet of torchvision, or a wide one: resnet18, resnet50, resnet50x2 ...")
    ] = "resnet50",
    scale: ScaleOption = "paper",
    variant: Annotated[str | None, typer.Option(help="Of the method, such as v1 of moco.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of the recipe's; milestones and a warm-up given as a share follow."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Over all processes, instead of the recipe's.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, bf16 or fp16 (CUDA), instead of the recipe's; backbone.json says which.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/METHOD, or runs/METHOD_VARIANT.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of initialisation, order and augmentation.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from OUT/last.pth; on CPUs ends in the same weights.")
    ] = False,
    monitor: Annotated[
        Path | None, typer.Option(help="Labelled folders: nearest neighbours are tested on them every epoch.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw loss and nearest neighbours into OUT/log.png.")] = False,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            help="Parts in which each process takes its images of a step, to need less memory. Nonstandard: it mends neither batch "
            "norm nor the negatives within a batch. For methods whose loss is a mean over the images.",
        ),
    ] = 1,
    skip_bad: Annotated[
        int, typer.Option(min=0, metavar="N", help="Go on with up to N bad images, each named in the log.")
    ] = 0,
) -> None:
    """Pretrain a backbone; writes backbone.pth (torchvision's names), backbone.json, run.json, last.pth, log.jsonl, tensorboard/.

    SIGTERM, Ctrl-C and Slurm's warning (SIGUSR1, SIGUSR2) end a run with a checkpoint after the step under way, exit code 143 or
    130; torchrun (of torch 2.10 on) passes the warning on if it is called with --signals-to-handle
    SIGTERM,SIGINT,SIGUSR1,SIGUSR2. Of last.pth the one before stays as previous.pth, should it be damaged. The environment has
    BENCH_WORKERS (processes that prepare batches), BENCH_CACHE_BYTES (of decoded images in memory) and BENCH_SAVE_SECONDS
    (between checkpoints).

    --monitor DIR has train/ and val/ with class folders, or class folders of which a fifth is set apart for validation. A log that
    is there already is drawn by `python -m pretrain.plot OUT/log.jsonl`.

    Examples:

      bench pretrain moco --data imagenet/train --arch resnet18 --scale mini

      torchrun --nproc-per-node 8 -m bench pretrain pixpro --data imagenet/train

      bench pretrain moco --variant v1 --data photos --epochs 100 lr=0.06
    """
    module = catalog.load("method", method)
    from bench import allocator, bfloat16, provenance
    from pretrain import loop

    changed = pairs(changes, precision=precision, batch_size=batch_size, epochs=epochs)
    allocator.keep()
    bfloat16.make_fast()
    out = out or Path("runs") / (f"{method}_{variant}" if variant else method)
    say(f"bench pretrain: {method}{f' {variant}' if variant else ''}, {arch}, {scale} scale, {data} -> {out}")
    written = loop.run(
        module,
        data,
        out,
        arch=arch,
        scale=scale,
        variant=variant,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        resume=resume,
        overrides=changed | ({"precision": precision} if precision else {}),
        labelled=monitor,
        accumulate=accumulate,
        skip_bad=skip_bad,
        about={"commit": provenance.commit(), "machine": provenance.machine()},
    )
    if plot and first():
        from pretrain import plot as picture

        say(f"{picture.draw(out / 'log.jsonl', out / 'log.png')}: loss and nearest neighbours")
    say(f"Next: bench transfer --task voc_c4 --checkpoint {shlex.quote(str(written))} --scale {scale} --data DIR")


@app.command()
def inspect(file: Checkpoint, family: Family = None, allow_missing: AllowMissing = None, json: Json = False) -> None:
    """Say what a checkpoint is and why: family, evidence, coverage, traits, licence. A TensorFlow checkpoint is its .index file.

    Only the file's index is read; convert, transfer and report read the values and refuse NaN and infinity.

    Example: bench inspect moco_v2_800ep_pretrain.pth.tar
    """
    from bench import fetch, sources

    report = sources.inspect(fetch.located(file), family=family, allow_missing=allow_missing or ())
    if json:
        print(jsonlib.dumps(report, indent=1, allow_nan=False))
        raise typer.Exit(2 if report["problem"] else 0)
    put(f"{file}: {' or '.join([report['family'], *report['equal']])}, {report['arch']}")
    for line in report["evidence"]:
        put(f"  because     {line}")
    put(f"  matched     {report['matched']} tensors" + (f", {report['filled']} filled" if report["filled"] else ""))
    for reason in dict.fromkeys(report["dropped"].values()):
        names = [name for name, why in report["dropped"].items() if why == reason]
        put(f"  dropped     {len(names)} ({reason}): {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}")
    for word in ("missing", "unexpected", "detector"):
        if names := report[word]:
            put(f"  {word:<11} {len(names)}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    put(f"  traits      {', '.join(f'{key} {value}' for key, value in report['traits'].items())}")
    if about := {key: value for key, value in report["about"].items() if not isinstance(value, dict | list)}:
        put(f"  about       {', '.join(f'{key} {value}' for key, value in about.items())}")
    if isinstance(arguments := report["about"].get("arguments"), dict) and arguments:
        put(f"  arguments   {', '.join(f'{key} {value}' for key, value in arguments.items())}")
    put(f"  licence     {report['licence'] or 'not known'}")
    put(f"  values      {report['values']}: convert, transfer and report refuse NaN and infinity")
    for note in report["notes"]:
        put(f"  note        {note}")
    if report["problem"]:
        raise ValueError(report["problem"])


@app.command()
def convert(
    file: Checkpoint,
    out: Annotated[Path, typer.Argument(help="The file to write: .pth or .safetensors, .pkl for detectron2.")],
    to: Annotated[Literal["torchvision", "detectron2", "mmseg"], typer.Option(help="Whose names.")],
    family: Family = None,
    allow_missing: AllowMissing = None,
) -> None:
    """Convert a checkpoint's backbone, verified by a forward pass before it is written: the file's own layout, fed as its
    publisher feeds it, against torchvision's, detectron2's and mmsegmentation's networks.

    Example: bench convert pixpro_base_r50_400ep.pth pixpro.pkl --to detectron2
    """
    from bench import content, fetch, sources
    from downstream import weights

    located = fetch.located(file)
    content.spare(located, weights.written(out))
    source = sources.backbone(located, family=family, allow_missing=allow_missing or ())
    about = {
        **{key: value for key, value in source.about.items() if key in sources.ABOUT},
        "proof": sources.prove(source),
        "source": {"file": Path(file).name, **sources.record(source)},
    }
    detector = {f"{weights.DETECTOR}{name}": tensor for name, tensor in source.detector.items()}
    proof = weights.save(source.tensors | detector, source.arch, source.traits, out, to=to, about=about)
    say(f"{file}: {' or '.join([source.family, *source.equal])}, {source.arch}, {source.matched} tensors matched")
    say(f"  {len(source.dropped)} dropped by name" + (f", {source.filled} filled" if source.filled else ""))
    if source.missing:
        say(f"  missing by permission and new: {', '.join(source.missing)}; the source's own layout is not proven")
    if detector:
        say(f"  of a detector: {len(detector)}" + (", which mmseg has no place for" if to == "mmseg" else ""))
    say("  largest relative difference from torchvision: " + ", ".join(f"{k} {v:.1e}" for k, v in proof.items()))
    say(f"  to be used with {weights.usage(source.traits, source.arch, to)}")
    for note in source.notes:
        say(f"  {note}")
    print(out)


@app.command()
def transfer(
    task: Annotated[str, typer.Option(help="A name of `bench list tasks`.")],
    changes: Changes = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help="A file of any family or its address, `random`, or the name of a run in runs/ (such as supervised)."
        ),
    ] = "random",
    trials: Annotated[int | None, typer.Option(min=1, help="Seeds 0 .. N-1. Default: the protocol's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="One trial with this seed.")] = None,
    scale: ScaleOption = "paper",
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="Records go to OUT/TASK/PROTOCOL/MODEL/SEED.json.")] = Path("runs/transfer"),
    arch: Annotated[
        str | None,
        typer.Option(help="Of `random`: resnet50 by default, resnet18 at mini scale. Of a file: to be checked."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The row's name in tables. Default: the method's or the file's.")
    ] = None,
    family: Family = None,
    allow_missing: AllowMissing = None,
    scale_batch: ScaleBatch = False,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            help="Parts of a batch that a process works through one after the other, for fewer GPUs than 8 and little memory: "
            "batch and learning rate stay the protocol's, what batch norm sees does not. The record is nonstandard.",
        ),
    ] = 1,
    skip_bad: Annotated[
        int,
        typer.Option(
            min=0,
            help="Training images that may be broken: all are decoded first, and the next one of the list takes the place of each. "
            "The record names them and is nonstandard.",
        ),
    ] = 0,
    precision: Annotated[
        Literal["fp32", "bf16"] | None,
        typer.Option(
            help="Default: the protocol's, fp32 at paper scale and bf16 at mini scale. Another one is recorded as nonstandard."
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Leave the trained network in the trial's folder, as model.safetensors, for `bench predict`."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a trial that was interrupted.")] = False,
    json: Json = False,
) -> None:
    """Fine-tune a checkpoint on a task to the paper's letter, evaluate it, and write one record a trial.

    A trial leaves a checkpoint every few minutes in its folder, beside run.json, log.jsonl and tensorboard/, until its record is
    written. SIGTERM, Ctrl-C and Slurm's warning (SIGUSR1, SIGUSR2) end it with a checkpoint, exit code 143 or 130; --resume goes on
    from there, on CPUs to the same numbers. torchrun (of torch 2.10 on) passes the warning on if it is called with
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1,SIGUSR2.

    A trial that has its record is skipped. Keys that differ from the protocol mark the record as nonstandard, other numbers of
    images than the papers' as reduced.

    Examples:

      bench transfer --task voc_c4 --dry-run

      bench transfer --task voc_c4 --checkpoint moco_v2_200ep_pretrain.pth.tar --data datasets

      bench transfer --task cityscapes_semantic --checkpoint random --scale mini --trials 2 --data datasets

      torchrun --nproc-per-node 8 -m bench transfer --task coco_fpn_1x --checkpoint pixpro_base_r50_400ep.pth
    """
    from bench import journey, predict
    from downstream import task as protocols

    if trials is not None and seed is not None:
        raise ValueError("expected --trials or --seed, found both")
    changed = pairs(changes, precision=precision, accumulate=accumulate > 1 and accumulate, skip_bad=skip_bad)
    resolved = journey.resolve(task, scale, changed, precision)
    if keep:
        predict.possible(resolved)
    if scale_batch:
        resolved, numbers = protocols.scaled(resolved, int(os.environ.get("WORLD_SIZE", "1")))
        say(
            "\n".join(
                [f"{resolved.name} by the linear rule, nonstandard:", *numbers] if numbers else ["nothing to scale"]
            )
        )
    if accumulate > 1:
        resolved = protocols.accumulated(resolved, accumulate)
        say(
            f"{resolved.name}: gradients of {accumulate} parts of a batch are summed, nonstandard. This does not fix batch norm, "
            "whose statistics are those of a part"
        )
    if skip_bad:
        resolved = protocols.tolerant(resolved, skip_bad)
    seeds = [seed] if seed is not None else list(range(trials or resolved.trials))
    if dry_run:
        from bench import preview

        if first():  # the others would have the GPU that is measured
            report = preview.plan(resolved, checkpoint, data, arch, family, name, seeds, allow_missing or ())
            print(jsonlib.dumps(report, indent=1) if json else preview.described(report))
        return
    plan = journey.plan(resolved, checkpoint, journey.datasets(data), arch, family, name, allow_missing or ())
    count = "1 trial" if len(seeds) == 1 else f"{len(seeds)} trials"
    say(
        f"bench transfer: {plan.model['name']} ({plan.model['arch']}) to {resolved.name}, {count}, "
        f"{plan.found['train']} training and {plan.found['test']} test images -> {out}"
    )
    if plan.reduced:
        say(
            "These are not all images of the papers' own sets: the records are marked `reduced`. bench data check says more"
        )
    if resolved.nonstandard:
        say(f"Changed: {', '.join(resolved.nonstandard)}: the records are marked `nonstandard`")
    if plan.proof:
        say(
            "  largest relative difference from torchvision: "
            + ", ".join(f"{k} {v:.1e}" for k, v in plan.proof.items())
        )
    made = journey.transfer(plan, seeds, out, resume, say, keep)
    if json and first():
        print(jsonlib.dumps(made, indent=1))
    where = f"--results {shlex.quote(str(out))}"
    tables = [f"bench table {name} {where}" for name in journey.tables(resolved.name)]
    say(f"Next: {', '.join([*tables, f'bench leaderboard {where}'])}")


@app.command("predict")
def predict_(
    file: Annotated[Path, typer.Argument(help="The model.safetensors that `bench transfer --keep` left.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photographs.")],
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/predictions"),
) -> None:
    """Ask a fine-tuned network what it finds in photographs: predictions.json, with boxes, masks and keypoints as COCO writes them, the
    classes of an image or their shares of it, and a picture of each photograph's objects or map.

    Images are shown as the trial's test shows them. DensePose's surfaces are left out, boxes stay.

    Example: bench predict runs/transfer/voc_c4/2f83ed2e263a-3a19d5a1/moco_v2-dea99bb1/0/model.safetensors street.jpg
    """
    from bench import predict

    print(predict.predict(file, images, out, say))


def listed(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


@app.command()
def sweep(
    changes: Changes = None,
    tasks: Annotated[str | None, typer.Option(metavar="A,B", help="Names of `bench list tasks`.")] = None,
    checkpoints: Annotated[
        str, typer.Option(metavar="X,Y", help="As --checkpoint of `bench transfer`, with commas.")
    ] = "random",
    trials: Annotated[int | None, typer.Option(min=1, help="Seeds 0 .. N-1. Default: the protocols'.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1", help="These seeds instead.")] = None,
    executor: Annotated[Literal["local", "slurm"], typer.Option(help="This machine, or Slurm.")] = "local",
    partition: Annotated[str | None, typer.Option(help="Slurm's. Account and the rest: SBATCH_ACCOUNT ...")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Of a trial. Default: 1 where there are any.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time. Default here: as GPUs or cores allow; Slurm: 256.")
    ] = None,
    minutes: Annotated[
        int, typer.Option("--time", min=1, help="Minutes of a Slurm job; what needs more is queued again and goes on.")
    ] = 240,
    scale: ScaleOption = "paper",
    scale_batch: ScaleBatch = False,
    data: DataOption = None,
    out: Annotated[Path, typer.Option(help="As of `bench transfer`; the sweep is in OUT/sweeps/NAME.")] = Path(
        "runs/transfer"
    ),
    arch: Annotated[str | None, typer.Option(help="As of `bench transfer`.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the sweep. Default: made from the grid, or the last one's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Only show how a sweep stands, to its end.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End a sweep's trials; the same sweep can go on later.")
    ] = False,
) -> None:
    """Run a grid of trials, one job each, side by side here or through Slurm; skip what has its record.

    The same call goes on with a sweep that was interrupted, from the trials' last checkpoints. Ctrl-C leaves its jobs running.
    Exit code 1 says that a trial failed.

    Examples:

      bench sweep --tasks voc_c4,coco_fpn_1x --checkpoints moco.pth,random --trials 5 --dry-run

      bench sweep --tasks voc_c4 --checkpoints moco,supervised,random --executor slurm --partition P --gpus 8

      bench sweep --watch

      bench sweep --cancel
    """
    from bench import sweep as sweeping

    if watch or cancel:
        here = sweeping.folder(out, name)
    else:
        if trials is not None and seeds is not None:
            raise ValueError("expected --trials or --seeds, found both")
        if not listed(tasks or "") or not listed(checkpoints):
            raise ValueError("expected --tasks and --checkpoints, found none: bench list tasks names them")
        if partition is not None and executor == "local":
            raise ValueError("expected --executor slurm with --partition, found local")
        numbers = None if seeds is None else listed(seeds)
        if numbers is not None and not (numbers and all(n.isdecimal() and int(n) < 2**31 for n in numbers)):
            raise ValueError(f"expected --seeds like 0,1,2, found {seeds!r}")
        plan = sweeping.plan(
            listed(tasks or ""),
            listed(checkpoints),
            [int(number) for number in numbers] if numbers else trials,
            scale,
            pairs(changes),
            data,
            out,
            arch=arch,
            executor=executor,
            gpus=gpus,
            jobs=jobs,
            partition=partition,
            minutes=minutes,
            scale_batch=scale_batch,
            name=name,
        )
        rows, lines = sweeping.described(plan)
        sweeping.show(rows)
        print("\n".join(lines), flush=True)
        if dry_run:
            return
        if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not typer.confirm("Start?", err=True):
            return
        here = sweeping.begin(out, plan, say)
    if cancel:
        sweeping.cancel(here, say)
        return
    try:
        complete = sweeping.watch(here, say)
    except KeyboardInterrupt:
        where = f"--name {here.name} --out {shlex.quote(str(out))}"
        say(f"bench: its trials go on. Come back: bench sweep --watch {where}; end it: bench sweep --cancel {where}")
        raise typer.Exit(130) from None
    if not complete:
        raise typer.Exit(1)


@app.command()
def table(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help="A name of `bench list tables`.")],
    style: Annotated[str, typer.Option("--format", help="md, csv, latex or html.")] = "md",
    results: records.Results = records.RUNS,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Show rows of other protocols in the printed table, with a footnote.")
    ] = False,
) -> None:
    """Print a report's tables in its own layout: published rows with their sources, measured rows with their trials.

    Examples:

      bench table moco

      bench table pixpro --format csv --results runs/demo/transfer

      bench table moco --format latex > moco.tex
    """
    catalog.load("table", format)
    gc.disable()  # this process ends soon, and a hundred thousand records are a million small objects
    from bench import journey
    from results import table as tables

    for line in tables.render(format, journey.measured(results), style, allow_mixed).rstrip("\n").split("\n"):
        put(line)


@app.command()
def leaderboard(
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("runs/leaderboard"),
    results: records.Results = records.RUNS,
    serve: Annotated[bool, typer.Option("--serve", help="Open it in the browser, from this machine alone.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0 takes a free one.")] = 0,
) -> None:
    """Write index.html, leaderboard.md, leaderboard.csv and plots: every model's number on every task, each with its source.

    Examples:

      bench leaderboard --out leaderboard

      bench leaderboard --serve
    """
    from results import leaderboard

    root = records.folder(results)
    from results import record

    say(f"bench leaderboard: {root} -> {out}")
    for path in leaderboard.write(record.trials(root), out, root):
        print(path)
    if serve:
        records.serve(out, port, say)


@app.command()
def report(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A file of any family or its address, or the name of a run in runs/ (such as supervised)."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to write into. Default: runs/report/MODEL, MODEL as of `bench transfer`."),
    ] = None,
    results: records.Results = records.RUNS,
    family: Family = None,
    arch: Annotated[str | None, typer.Option(help="Where the file does not say it.")] = None,
) -> None:
    """Write a checkpoint's model card: what it is, its forward proof, every measured task beside its neighbours, plots, commands.

    Example: bench report moco --out card
    """
    from bench import report

    for path in report.write(checkpoint, out, results, family, arch):
        print(path)


@data_app.command()
def synthesize(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where the datasets will stand; none may be there yet.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed and sizes draw the same pixels.")] = 0,
    voc: Annotated[int, typer.Option(min=0, help="Pictures in each split of VOC2007 and of VOC2012.")] = 60,
    coco: Annotated[
        int,
        typer.Option(min=0, help="Pictures in each split of coco and lvis; some have persons whose surface is marked."),
    ] = 100,
    cityscapes: Annotated[int, typer.Option(min=0, help="Pictures in each split of cityscapes.")] = 40,
    imagenet: Annotated[int, typer.Option(min=0, help="Training pictures in each of imagenet's 20 classes.")] = 32,
    side: Annotated[int, typer.Option(min=96, help="Longer side of a VOC or COCO picture, in pixels.")] = 192,
) -> None:
    """Draw small datasets in the authentic layouts: VOC2007, VOC2012, coco with lvis and densepose, cityscapes, imagenet. A size
    of 0 leaves one out.

    Example: bench data synthesize datasets
    """
    from downstream import synthetic

    say(f"bench data synthesize: drawing scenes into {out}")
    drawn = synthetic.synthesize(out, seed, voc=voc, coco=coco, cityscapes=cityscapes, imagenet=imagenet, side=side)
    for name, splits in drawn.items():
        print(f"{name}: " + ", ".join(f"{split} {count}" for split, count in splits.items()))


@data_app.command()
def check(
    task: Annotated[str, typer.Argument(help="A name of `bench list tasks`.")],
    data: DataOption = None,
    make_label_train_ids: Annotated[
        bool,
        typer.Option("--make-label-train-ids", help="First write the labelTrainIds that Cityscapes' archives lack."),
    ] = False,
    json: Json = False,
) -> None:
    """Open all that a task would read and list what is wrong: file, reason, mend. Exit code 1 says that a run would fail.

    Examples:

      bench data check voc_c4 --data datasets

      bench data check cityscapes_semantic --data datasets --make-label-train-ids
    """
    from bench import journey

    report, words = journey.checked(journey.resolve(task, "paper", {}), data, make_label_train_ids)
    print(jsonlib.dumps(report, indent=1) if json else words)
    if not report["runs"]:
        raise typer.Exit(1)


@app.command("list")
def list_(
    kind: Annotated[Literal["methods", "tasks", "sources", "tables"], typer.Argument(help="What to list.")],
    json: Json = False,
) -> None:
    """List the names that the other commands take.

    Example: bench list tasks
    """
    if kind == "sources":
        from bench import families

        rows = families.listed()
    else:
        single = kind.removesuffix("s")
        rows = [{"name": name, "summary": catalog.summary(single, name)} for name in catalog.names(single)]
    if json:
        print(jsonlib.dumps(rows, indent=1))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A task or a method.")],
    scale: ScaleOption = "paper",
    variant: Annotated[str | None, typer.Option(help="Of a method.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only where another task's or method's numbers differ.")
    ] = None,
    json: Json = False,
) -> None:
    """Show a task's protocol, or a method's recipe, whole; or what tells it from another one.

    Examples:

      bench show voc_c4 --json

      bench show pixpro --scale mini

      bench show coco_fpn_1x --against coco_fpn_1x_pixpro
    """
    from bench import preview

    report = preview.one(name, scale, variant)
    if against is not None:
        report = preview.differences(report, preview.one(against, scale, None))
    if json:
        print(jsonlib.dumps(report, indent=1))
        return
    for key, value in report.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, content in value.items():
                print(f"  {inner}: {content}")
        else:
            print(f"{key}: {value}")


@app.command()
def speed(
    part: Annotated[str | None, typer.Argument(help="One part, e.g. convert. Default: all.")] = None,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="How listing and reading grow from 1,000 to 100,000 images, instead.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Write the ratios into results/measured/speed.json.")] = False,
    json: Json = False,
) -> None:
    """Measure this machine: each part's cost against what people use today, in one run. Takes a gigabyte of disk.

    All parts take over an hour on two cores: `coco` and `knn` about ten minutes each, `lvis` twenty, the others less than five.

    A ratio that was kept before stands beside the new one; one that has become worse by a tenth is told, and nothing fails.

    Example: bench speed convert
    """
    from bench import speed
    from bench.speed import kept

    if scaling:
        if part:
            raise ValueError(f"expected a part or --scaling, found {part} and --scaling")
        _scaling(json, keep)
        return
    rows, before = speed.run(part, say), kept.rows()
    if json:
        print(jsonlib.dumps({"parts": [row.plain() for row in rows]}, indent=1))
    else:
        for row in rows:
            print(speed.described(row) + kept.since(row, before))
    if keep:  # last: what took an hour is said, too, where the package cannot be written
        kept.keep(rows)


def _scaling(json: bool, keep: bool) -> None:
    import tempfile

    from bench.speed import kept, scaling

    with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
        grown = scaling.run(Path(folder), say)
    if json:
        print(jsonlib.dumps({"scaling": [growth.plain() for growth in grown]}, indent=1))
    else:
        for growth in grown:
            print(scaling.described(growth))
    if keep:
        kept.keep_scaling(grown)


@app.command()
def costs(
    views: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="That a core prepares in a second: 64 / `ours` of the first row of `bench speed views --json`.",
        ),
    ] = None,
    bandwidth: Annotated[float, typer.Option(min=0.001, help="GB/s of a GPU to other machines, assumed.")] = 12.5,
    latency: Annotated[float, typer.Option(min=0, help="Microseconds to another machine, assumed.")] = 5.0,
    json: Json = False,
) -> None:
    """What the reports' tables cost on 8, 64 and 512 GPUs, on paper: steps, bytes a step, loader cores, published GPU-hours.

    Example: bench costs --views 600
    """
    from bench import costs

    report = costs.report(views=views, link=costs.Link(bandwidth * 1e9, latency * 1e-6))
    print(jsonlib.dumps(report, indent=1) if json else costs.described(report))


@app.command()
def doctor() -> None:
    """What is installed, what is missing and what that means. Exit code 1 if a task cannot run.

    Example: bench doctor
    """
    from bench import doctor

    fine = True
    for good, line in doctor.lines():
        print(f"{'ok  ' if good else 'MISS'}  {line}", flush=True)
        fine &= good
    if not fine:
        raise typer.Exit(1)


def sentence(error: Exception) -> str:
    """An error on one line."""
    if "/gloo/transport/" in str(error) or "ncclRemoteError" in str(error):
        return "expected every process of this run to stay, found that one has ended: its own line says why, if it was not killed"
    return printable(" ".join(str(error).split()))


def end(why: str, code: int) -> NoReturn:
    """Ends this process with a line that says why.

    Of several processes the first says what befalls them all. Another one waits with its line for torchrun, which ends all
    processes once one has ended: what is said after that has befallen this process alone. srun ends none, so all may speak.
    """
    whose = "" if first() else f"process {os.environ['RANK']}: "
    if whose:
        time.sleep(LATER)
    print(f"bench: {whose}{why}", file=sys.stderr, flush=True)
    sys.exit(code)


def at_home(word: str) -> str:
    """A word of a call; the ~ in --out=~/runs, which shells leave there, is the home folder."""
    key, _, value = word.partition("=")
    return f"{key}={Path(value).expanduser()}" if value.startswith("~/") else word


def main() -> None:
    """The console script."""
    try:
        answered(lambda: app(args=[*map(at_home, sys.argv[1:])]))
    except SystemExit as end:
        if end.__context__ and isinstance(end.__context__.__cause__, KeyboardInterrupt):  # of which typer says nothing
            say("bench: interrupted")
        raise


def answered(call: Callable[[], object]) -> None:
    """Makes a call that goes on where it was ended. A user's error is one sentence and an exit code, never a traceback."""
    try:
        call()
    except (FileExistsError, NotADirectoryError) as error:
        if error.filename is None:
            end(sentence(error), 2)
        file = next(
            (str(part) for part in (Path(error.filename), *Path(error.filename).parents) if part.is_file()), None
        )
        end(
            f"expected a folder on the way to {error.filename}, found that {file or 'a part of it'} is a file: name another",
            2,
        )
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, UnicodeEncodeError) and not error.encoding.lower().startswith("utf"):
            end(f"expected an output that takes every sign, found {error.encoding}: set PYTHONIOENCODING=utf-8", 1)
        end(sentence(error), 2)
    except (RuntimeError, OSError, FloatingPointError) as error:
        end(sentence(error), 1)
    except MemoryError as error:
        end(f"out of memory {sentence(error)}".rstrip(), 1)
    except KeyboardInterrupt:
        say(INTERRUPTED)
        sys.exit(130)
