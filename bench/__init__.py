"""Finds out what a pretrained visual backbone is worth downstream. The only package that knows the other three."""

import warnings

# torch 2.14 deprecates torch.jit.script, which fvcore and detectron2 still call when they are imported.
warnings.filterwarnings("ignore", message=r".*torch\.jit", category=FutureWarning)
warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
# Every process of torchrun would say them. broadcast_buffers: torch 2.13 has a new name that torch 2.6 to 2.12 do not know.
warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
# Of 1 x 1 convolutions with channels last, whose two kinds of strides are one and the same memory.
warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides", category=UserWarning)

__version__ = "0.1.0"
