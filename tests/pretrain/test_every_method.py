"""What holds for every method and every variant, found by file: a method that is added is tested here without a word."""

import ast
import copy
import importlib
import itertools
import math
import re
import statistics
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from pretrain import dist, loop
from pretrain.data import Folder
from pretrain.recipes import check_whole, resolved

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "pretrain" / "methods").glob("*.py") if not path.name.startswith("_"))
MODULES = {path.stem: importlib.import_module(f"pretrain.methods.{path.stem}") for path in FILES}
STEPS = 3


def variants(module):
    """The default's name and every other: the words of the sentence that refuses an unknown one, which a test below wants."""
    names, sentence = {module.recipe().get("variant"): None}, ""
    try:
        module.recipe("no such")
    except ValueError as refusal:
        sentence = str(refusal)
    for word in re.findall(r"[\w.+-]+", sentence):
        try:
            names[module.recipe(word)["variant"]] = word
        except ValueError:
            continue
    return list(names.values())


CASES = [(name, variant) for name, module in MODULES.items() for variant in variants(module)]
# Variants that differ in the numbers of their schedule alone are one kind.
SCHEDULE = {
    "variant",
    "epochs",
    "batch_size",
    "base_lr",
    "weight_decay",
    "ema",
    "milestones",
    "warmup_epochs",
    "temperature",
}
KINDS = {}
for case in CASES:
    said = MODULES[case[0]].recipe(case[1])
    KINDS.setdefault((case[0], repr({key: said[key] for key in sorted(said.keys() - SCHEDULE)})), case)
every_method = pytest.mark.parametrize("name", MODULES)
every_variant = pytest.mark.parametrize(
    ("name", "variant"), CASES, ids=["-".join(filter(None, case)) for case in CASES]
)


# What may have one entry a view.
SINGLE = (
    "size",
    "jitter_p",
    "gray_p",
    "blur_p",
    "blur_kernel",
    "solarize_p",
    "photometric_p",
    "randaugment",
    "strong",
    "flip_p",
)


@every_variant
def test_a_recipe_says_everything_that_is_read_of_it(name, variant):
    recipe = MODULES[name].recipe(variant)
    check_whole(name, recipe)
    assert variant is None or recipe["variant"] == variant
    views = recipe["views"]
    for key in SINGLE:
        assert not isinstance(recipe.get(key), tuple) or len(recipe[key]) == views, key
    assert recipe.get("jigsaw", 0) in range(views)
    for key, parts in (("crop_area", 2), ("jitter", 4)):
        nested = isinstance(recipe[key][0], tuple)
        assert len(recipe[key]) == (views if nested else parts), key
        assert not nested or {len(part) for part in recipe[key]} == {parts}
    for key in ("gray_p", "jitter_p", "flip_p", "blur_p", "solarize_p"):
        assert all(0 <= p <= 1 for p in np.atleast_1d(recipe[key])), key


@every_method
def test_an_unknown_variant_is_refused_and_the_known_ones_are_named(name):
    with pytest.raises(ValueError, match=f"^expected .* of {name}.*found 'no such'$") as refusal:
        MODULES[name].recipe("no such")
    assert all(variant is None or variant in str(refusal.value) for variant in variants(MODULES[name]))


@every_method
def test_two_processes_are_compared_with_one(name):
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    stages = ("simclr_finetune", "simclr_distill")  # begin with another run's file and gather nothing
    assert name in stages or any(f'"{name}"' in text and "two_processes(" in text for text in tests)


@every_variant
def test_what_is_unverified_is_a_field_of_the_recipe(name, variant):
    recipe = MODULES[name].recipe(variant)
    assert set(recipe.get("unverified", ())) <= set(recipe)


@every_method
def test_a_methods_file_says_paper_and_command_and_is_short(name):
    source = (ROOT / "pretrain" / "methods" / f"{name}.py").read_text()
    tree = ast.parse(source)
    docstring = ast.get_docstring(tree)
    if name != "supervised":  # its source is torchvision's recipe, not a paper
        assert re.search(r"arXiv \d{4}\.\d{5}", docstring)
    assert f"    bench pretrain {name} --data " in docstring
    assert len(source.splitlines()) <= 220


def functions(tree):
    """The number of lines of every function, without its docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            said = node.body[0] if ast.get_docstring(node) else None
            yield node.end_lineno - node.lineno + 1 - (said.end_lineno - said.lineno + 1 if said else 0)


def test_the_median_function_is_shorter_than_15_lines():
    for folder in (ROOT / "pretrain", ROOT / "pretrain" / "methods"):
        lengths = [n for path in folder.glob("*.py") for n in functions(ast.parse(path.read_text()))]
        assert statistics.median(lengths) < 15


def logic(path):
    """The lines that do something: no docstrings, comments, imports or lone brackets."""
    source = path.read_text()
    silent = set()
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, (ast.Import, ast.ImportFrom)):
            silent |= set(range(node.lineno, node.end_lineno + 1))
    lines = [line.partition("  #")[0].strip() for n, line in enumerate(source.splitlines(), 1) if n not in silent]
    return [line for line in lines if re.search(r"\w", line) and not line.startswith("#")]


def test_no_six_lines_stand_in_two_methods():
    blocks = {path.stem: set(zip(*(logic(path)[i:] for i in range(6)), strict=False)) for path in FILES}
    for one, other in itertools.combinations(blocks, 2):
        assert not blocks[one] & blocks[other], (one, other)


# From here on every method runs, on 10 small images: epochs of two steps of 4.

NARROW = {
    "hidden": "16",
    "dim": "8",
    "predictor_hidden": "8",
    "prototypes": "6",
    "freeze_epochs": "0",
    "precision": "fp32",
    "warmup_epochs": "0",
    "ema": "0.9",
}
OPTIONS = {"arch": "resnet18", "scale": "mini", "epochs": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """10 images in 2 class folders."""
    root, rng = tmp_path_factory.mktemp("every") / "photos", np.random.default_rng(0)
    for i in range(10):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def earlier(photos):
    """The runs from which the stages that go on from another begin: recipe field and file, by method."""
    begun = {}
    for name, before in (("simclr_finetune", "simclr"), ("simclr_distill", "simclr_finetune")):
        if name in MODULES:
            loop.run(MODULES[before], photos, photos.parent / before, **OPTIONS, overrides=narrow(before, None, begun))
            begun[name] = {"checkpoint": str(photos.parent / before / "last.pth")}
    return begun


def narrow(name, variant, earlier):
    """What keeps a run of a method small, as the command would say it."""
    recipe = MODULES[name].recipe(variant)
    asked = {key: value for key, value in NARROW.items() if key in recipe} | earlier.get(name, {})
    side = "64" if "positive_ratio" in recipe else "32"  # a map of one pixel has nothing to tell apart
    asked["lr"] = "0.1" if recipe["optimiser"] == "sgd" else "10"  # LARS moves a layer by a thousandth of it times this
    return asked | {"size": side if isinstance(recipe["size"], int) else ",".join(side for _ in recipe["size"])}


def trained(part):
    return [p for p in part.parameters() if p.requires_grad]


def followers(net):
    """The momentum branch's parts and what each follows: `key_head` and `head`, `target_backbone` and `backbone`."""
    parts = dict(net.named_children())
    frozen = [name for name, part in parts.items() if any(True for _ in part.parameters()) and not trained(part)]
    pairs = {name: name.partition("_")[2] for name in frozen if name != "teacher"}  # a teacher is given and stays
    assert all(other in parts for other in pairs.values()), pairs
    return pairs


def ends(net, parts):
    """The first and the last parameter of each of the parts."""
    parameters = [list(net.get_submodule(part).parameters()) for part in parts]
    return [p.detach().double().clone() for several in parameters for p in (several[:1] + several[-1:])]


def begin(name, variant, photos, earlier):
    module, folder = MODULES[name], Folder(photos)
    recipe = resolved(module, folder, "mini", variant, 2, 4, narrow(name, variant, earlier))
    torch.manual_seed(0)
    run_of = {"method": name, "arch": "resnet18", "scale": "mini", "seed": 0, "recipe": recipe, "data": {}}
    return loop.Training(module.METHOD("resnet18", recipe), folder, run_of, dist.process())


def advance(training):
    training.update(*training.source.batch(training.step))


class Waits(TorchDispatchMode):
    """Takes down the operations whose outcome, a number or a shape, Python would wait for a GPU to know."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name in ("_local_scalar_dense", "equal", "masked_select", "nonzero", "repeat_interleave", "_unique2"):
            self.found.add(name)
        return operation(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=KINDS.values(), ids=["-".join(filter(None, case)) for case in KINDS.values()])
def run(request, photos, earlier):
    """What three steps of a method leave behind, and a fourth after a stop there and without."""
    training = begin(*request.param, photos, earlier)
    net, recipe, pairs = training.model, training.recipe, followers(training.model)
    equal = all(
        torch.equal(k, q)
        for key, query in pairs.items()
        for k, q in zip(net.get_submodule(key).parameters(), net.get_submodule(query).parameters(), strict=True)
    )
    queries, keys = [ends(net, pairs.values())], [ends(net, pairs)]
    for _ in range(STEPS):  # the third is in the middle of the second epoch
        advance(training)
        queries.append(ends(net, pairs.values()))
        keys.append(ends(net, pairs))
    gradients = {n: (p.requires_grad, p.ndim, p.grad) for n, p in net.named_parameters()}
    held = {id(p) for group in training.optimiser.param_groups for p in group["params"]}
    optimised = held == {id(p) for p in trained(net)}
    filled = [int(part.pointer) for part in net.modules() if hasattr(part, "enqueue")]

    resumed = begin(*request.param, photos, earlier)
    resumed.restore(copy.deepcopy(training.state()))
    with Waits() as waits:
        for one in (training, resumed):
            torch.randn(7)  # what was drawn before must not matter
            advance(one)
    return SimpleNamespace(**locals())


def test_the_key_branch_begins_equal_and_follows_in_closed_form(run):
    assert run.equal
    assert ("ema" in run.recipe) == bool(run.pairs) == ("backbone" in run.pairs.values())
    if not run.pairs:
        return
    m, cosine = run.recipe["ema"], run.recipe.get("ema_schedule") == "cosine"
    progress = [step / run.training.horizon for step in range(STEPS)]
    momenta = [1 - (1 - m) * (1 + math.cos(math.pi * p)) / 2 if cosine else m for p in progress]
    # k_n = m_1 ... m_n q_0 + sum_t (1 - m_t) m_(t+1) ... m_n q_t, where q_t is what stood when the key followed; the first time,
    # those that follow before the forward pass follow a copy of themselves
    before = all(torch.equal(k, q) for k, q in zip(run.keys[1], run.queries[0], strict=True))
    then = run.queries[:-1] if before else run.queries[1:]
    for i, key in enumerate(run.keys[-1]):
        expected = math.prod(momenta) * run.queries[0][i]
        for t in range(STEPS):
            expected = expected + (1 - momenta[t]) * math.prod(momenta[t + 1 :]) * then[t][i]
        # the rounding of three steps in single precision
        torch.testing.assert_close(key, expected, atol=4e-7 * key.abs().max().item() + 1e-9, rtol=0)


def test_a_step_does_not_wait_for_the_device(run):
    # NCE's constant and SwAV's queue are looked at: have they begun?
    asks = {"z", "queue_starts"} & {name.rpartition(".")[2] for name, _ in run.net.named_buffers()}
    assert run.waits.found <= ({"_local_scalar_dense"} if asks else set())


def test_every_trainable_tensor_gets_a_finite_gradient_and_the_key_branch_none(run):
    for tensor, (learns, ndim, gradient) in run.gradients.items():
        assert (gradient is not None) == learns, tensor
        assert not learns or (gradient.isfinite().all() and (ndim == 1 or gradient.any())), tensor
    assert run.optimised
    frozen = {name for name, (learns, _, _) in run.gradients.items() if not learns}
    assert all(
        name.startswith((*(f"{key}." for key in run.pairs), "teacher.")) or name.endswith(".bias") for name in frozen
    )


def test_a_queue_is_first_in_first_out_and_wraps(run):
    queues = [copy.deepcopy(part) for part in run.net.modules() if hasattr(part, "enqueue")]
    for part, pointer in zip(queues, run.filled, strict=True):
        (width, size), batch = part.queue.shape, part.queue.shape[1] // 2
        assert pointer == STEPS * 4 % size  # every step took the place of the oldest
        part.pointer.zero_()
        batches = [torch.randn(batch, width) for _ in range(3)]
        for k in batches:
            part.enqueue(k)
        assert torch.equal(part.queue, torch.cat([batches[2], batches[1]]).T)
        assert int(part.pointer) == 3 * batch % size


def test_a_run_that_was_stopped_and_resumed_is_bit_identical(run):
    assert run.resumed.step == run.training.step == STEPS + 1
    whole, again = run.training.state(), run.resumed.state()
    assert whole["model"].keys() == again["model"].keys()
    for tensor, value in whole["model"].items():
        assert torch.equal(value, again["model"][tensor]), tensor
