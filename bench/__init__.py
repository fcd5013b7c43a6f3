"""Finds out what a pretrained visual backbone is worth downstream. The only package that knows the other three."""

__version__ = "0.1.0"
