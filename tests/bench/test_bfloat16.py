"""Products of bfloat16 by way of float32 are what bfloat16 gives: exact sums, rounded once."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torchvision.models import resnet18

from bench import bfloat16


class Seen(TorchDispatchMode):
    """What comes of the products that torch is asked for: their dtypes."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in bfloat16.ASKED:
            self.dtypes |= {x.dtype for x in args if isinstance(x, torch.Tensor)}
        return func(*args, **(kwargs or {}))


def drawn(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).bfloat16() for size in sizes]


CALLS = {
    "conv2d": (F.conv2d, (2, 4, 9, 9), (6, 4, 3, 3), (6,)),
    "grouped": (lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2), (2, 4, 9, 9), (6, 2, 3, 3)),
    "same": (lambda x, w: F.conv2d(x, w, padding="same"), (2, 4, 9, 9), (6, 4, 3, 3)),
    "transposed": (F.conv_transpose2d, (2, 4, 5, 5), (4, 6, 3, 3)),
    "linear": (F.linear, (5, 64), (7, 64), (7,)),
    "mm": (torch.mm, (5, 64), (64, 7)),
    "mv": (torch.mv, (5, 64), (64,)),
    "dot": (torch.dot, (64,), (64,)),
    "matmul": (torch.matmul, (3, 5, 64), (3, 64, 7)),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b, beta=0.5), (3, 5, 7), (3, 5, 64), (3, 64, 7)),
    "einsum": (lambda a, b: torch.einsum("nc,mc->nm", a, b), (5, 64), (7, 64)),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", [True, False])
def test_a_product_is_the_exact_one_rounded_once_and_so_are_its_gradients(name, grad):
    call, *sizes = CALLS[name]
    given = drawn(*sizes)
    exact = [x.double().requires_grad_(grad) for x in given]
    given = [x.requires_grad_(grad) for x in given]
    expected = call(*exact)
    with Seen() as seen, bfloat16.ByFloat32(), torch.inference_mode(not grad):
        found = call(*given)
        assert found.dtype == torch.bfloat16
        if grad:
            pull = drawn(found.shape, seed=1)[0]
            found.backward(pull)
    assert seen.dtypes == {torch.float32}
    if grad:
        expected.backward(pull.double())
    pairs = [(found, expected)] + [(x.grad, y.grad) for x, y in zip(given, exact, strict=True) if grad]
    for value, wanted in pairs:
        assert value.dtype == torch.bfloat16
        # half a unit in the last of eight places, and what float32 leaves of a sum that nearly cancels
        torch.testing.assert_close(value.double(), wanted, rtol=2**-8, atol=1e-5)


def test_a_network_under_autocast_gives_what_torch_gives_and_float32_is_left_alone():
    torch.manual_seed(0)
    net = resnet18(num_classes=5).to(memory_format=torch.channels_last)
    image, label = torch.randn(8, 3, 64, 64), torch.arange(8) % 5  # fewer, and batch norm makes signs of differences

    def gradients(enabled):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = F.cross_entropy(net(image).float(), label)
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in net.parameters())]

    with _disable_current_modes():
        whole, theirs = gradients(False), gradients(True)
    with bfloat16.ByFloat32():
        for found, expected in zip(gradients(False), whole, strict=True):
            assert torch.equal(found, expected)
        ours = gradients(True)
    assert ours[0] == pytest.approx(float(theirs[0]), rel=2**-6)

    def apart(one, other):
        return min(
            F.cosine_similarity(x.flatten(), y.flatten(), dim=0) for x, y in zip(one[1:], other[1:], strict=True)
        )

    # torch's own gradients in bfloat16 are as far from those in float32, and with another number of threads from these
    assert apart(ours, theirs) > 0.87 and apart(ours, whole) > apart(theirs, whole) - 0.05


def test_it_is_used_once_and_only_where_neither_instructions_nor_a_gpu_are_there(monkeypatch):
    entered = []
    monkeypatch.setattr(bfloat16.ByFloat32, "__enter__", lambda self: entered.append(self))
    for there, gpu, active in ((True, False, ()), (False, True, ()), (False, False, (bfloat16.ByFloat32(),))):
        monkeypatch.setattr(bfloat16, "native", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        monkeypatch.setattr(bfloat16, "_get_current_dispatch_mode_stack", lambda active=active: active)
        bfloat16.make_fast()
    assert not entered
    monkeypatch.setattr(bfloat16, "_get_current_dispatch_mode_stack", list)
    bfloat16.make_fast()
    assert len(entered) == 1
