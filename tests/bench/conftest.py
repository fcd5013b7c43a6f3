import contextlib
from concurrent.futures import Executor, Future

import pytest

from bench import workers


class Here(Executor):
    """Does at once, in this process, what it is given."""

    def submit(self, call, /, *given):
        done = Future()
        try:
            done.set_result(call(*given))
        except Exception as error:
            done.set_exception(error)
        return done


@pytest.fixture
def here(monkeypatch):
    """No worker processes, which import for seconds: test_workers, test_demo and test_track have some."""
    monkeypatch.setattr(workers, "pool", lambda log, tasks=None: contextlib.nullcontext(Here()))
