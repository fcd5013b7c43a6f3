"""Products of bfloat16 on a CPU that has no instructions for them (x86 before AVX-512): by way of float32.

There torch's own products of bfloat16 are far slower than those of float32.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

aten = torch.ops.aten
PRODUCTS = {
    *(aten.convolution.default, aten.convolution_backward.default),
    *(aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.mv.default, aten.dot.default),
}
MADE_OF_THEM = {  # seen whole where no gradient is kept, as under torch.inference_mode
    *(aten.conv2d.default, aten.conv2d.padding, aten._convolution_mode.default, aten.conv_transpose2d.input),
    *(aten.linear.default, aten.matmul.default, aten.einsum.default),
}
ASKED = PRODUCTS | MADE_OF_THEM


class ByFloat32(TorchDispatchMode):
    """Convolutions and matrix products of bfloat16 on the CPU, forward and backward, are made in float32 and rounded once.

    As instructions for bfloat16 do: the product of two such numbers is exact in float32, and sums are kept in float32.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here: to be told to leave this alone, the compiler would be imported, for seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in ASKED and _some_half(args):
            if func in MADE_OF_THEM:
                with self:
                    return func.decompose(*args, **(kwargs or {}))
            made = func(*(x.float() if _half(x) else x for x in args), **(kwargs or {}))
            return (
                made.bfloat16()
                if isinstance(made, torch.Tensor)
                else tuple(x if x is None else x.bfloat16() for x in made)
            )
        return func(*args, **(kwargs or {}))


def _half(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 and x.device.type == "cpu"


def _some_half(args: Iterable[Any]) -> bool:
    """Whether there is such a tensor among a product's arguments, or in the list that einsum takes."""
    return any(_half(x) or (isinstance(x, list | tuple) and _some_half(x)) for x in args)


def native() -> bool:
    """Whether torch has instructions of this CPU for products of bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def make_fast() -> None:
    """From now on in this thread, on a CPU without instructions for them; where there is a GPU, nothing happens."""
    active = any(isinstance(mode, ByFloat32) for mode in _get_current_dispatch_mode_stack())
    if not (active or native() or torch.cuda.is_available()):
        ByFloat32().__enter__()
