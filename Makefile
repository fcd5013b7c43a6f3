.PHONY: setup demo test mini-track

setup: .venv/.ready

.venv/.ready: pyproject.toml .ci/setup .ci/constraints.txt .ci/detectron2.txt
	@.ci/setup

demo: setup
	@.venv/bin/bench demo

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/pytest

mini-track: setup
	@.venv/bin/python -m bench.track $(DATA)
