"""Tests run as `bench` does where there is no GPU, also where there is one."""

import os

import pytest

from bench import bfloat16

os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="session")
def _products():
    bfloat16.make_fast()
