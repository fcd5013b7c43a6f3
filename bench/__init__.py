"""Finds out what a pretrained visual backbone is worth downstream. The only package that knows the other three."""

import warnings

# torch 2.14 deprecates torch.jit.script, which fvcore and detectron2 still call when they are imported.
warnings.filterwarnings("ignore", message=r".*torch\.jit", category=FutureWarning)
warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)

__version__ = "0.1.0"
