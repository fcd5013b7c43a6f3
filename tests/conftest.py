"""Tests run as `bench` does."""

import pytest

from bench import bfloat16


@pytest.fixture(autouse=True, scope="session")
def _products():
    bfloat16.make_fast()
