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
	OMP_NUM_THREADS=1 .venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder

mini-track: setup
	@test -n "$(DATA)" || { echo 'expected a folder of datasets: make mini-track DATA=datasets' >&2; exit 2; }
	@.venv/bin/python -m bench.track "$(DATA)"
