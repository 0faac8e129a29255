# `make demo` and `make test` do all the set-up on a fresh machine: a virtual environment and its packages.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What rests on other packages' interfaces: plan, execute, train, resume, evaluate, probe, write and read a
# store here and in a bucket, report. The rest of the suite does not change with their releases.
MAIN_JOB := $(addprefix tests/,$(addsuffix .py, test_end_to_end test_versions specs/test_load kernels/test_lens \
	kernels/test_compile kernels/test_triton store/test_store store/analysis/test_reference store/arrays/test_shards store/report/test_report \
	$(addprefix engine/, cli/test_commands cli/test_doctor cli/test_export data/test_prepare data/test_public_sets \
	data/test_sources models/test_heads models/test_lens running/test_buckets stages/test_evaluate \
	stages/training/test_train text/test_encoding)))
PYTEST := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# The first of these Pythons that is at hand, on the path or as one of pyenv's.
python_of = $(shell for v in $(1); do \
	for p in python$$v $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$v.*/bin/python; do \
	$$p -c 'import ensurepip' 2>/dev/null && echo $$p && exit; done; done)
OLDEST ?= $(call python_of,3.11 3.12 3.13 3)
NEWEST ?= $(call python_of,3.14 3.13 3.12 3)

.PHONY: demo finding test test-device test-oldest test-newest check lock audit bench honesty gpu tutorial gallery docs clean
.DELETE_ON_ERROR:

# Only what the locks name, file by file; nothing is built here but this package, by tools of the lock.
LOCKED := $(BIN)/pip install --quiet --require-hashes --no-deps --only-binary :all: --requirement
LOCKS := requirements.lock requirements-torch-cpu.lock requirements-torch.lock

# PyTorch: the CPU build where pip finds it, else that of the package index.
$(BIN)/.ready: pyproject.toml $(LOCKS) Makefile setup.py $(wildcard kernels/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) requirements.lock
	$(LOCKED) requirements-torch-cpu.lock 2>$(VENV)/no-cpu-build || { \
		echo "no CPU build of PyTorch at hand: installing that of the package index"; \
		$(LOCKED) requirements-torch.lock; }
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Writes the locks anew, of pyproject.toml and constraints.txt. WHEELS: files of PyTorch's CPU builds.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv
	PATH=$(CURDIR)/.venv-lock/bin:$$PATH $(PYTHON) tests/lock.py $(WHEELS)
	rm -rf .venv-lock

demo: $(BIN)/.ready
	$(BIN)/engine execute specs/studies/demo.toml

# Several test files at a time, each in a process with one thread; in the order of their names, for the file
# with the fewest tests is seldom the shortest.
test: check
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)

# All of the script for a GPU, with tiny sizes on the CPU.
test-device: $(BIN)/.ready
	$(BIN)/python -m pytest -m device

# The main job with the oldest releases that pyproject.toml allows, and with the newest that there are. Each
# brings PyTorch's CUDA build: 6 GB, of which nothing is kept elsewhere. What is imported is compiled to bytecode,
# whatever the environment says, for every child process imports it again.
test-oldest: .venv-oldest/.ready
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv-oldest/bin/python $(PYTEST) $(MAIN_JOB)

test-newest: .venv-newest/.ready
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv-newest/bin/python $(PYTEST) $(MAIN_JOB)

INSTALL := -m pip install --quiet --no-compile --no-cache-dir --editable '.[tensorboard,test]'

.venv-oldest/.ready: pyproject.toml constraints-oldest.txt Makefile setup.py $(wildcard kernels/csrc/*)
	$(OLDEST) -m venv .venv-oldest
	.venv-oldest/bin/python $(INSTALL) --constraint constraints-oldest.txt
	touch $@

.venv-newest/.ready: pyproject.toml Makefile setup.py $(wildcard kernels/csrc/*)
	$(NEWEST) -m venv .venv-newest
	.venv-newest/bin/python $(INSTALL) --upgrade --upgrade-strategy eager
	.venv-newest/bin/pip freeze
	touch $@

check: $(BIN)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Known weaknesses of the releases in the locks, from the index's own database; fails where one cannot be looked up.
audit: $(BIN)/.ready
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock --requirement requirements-torch.lock

bench: $(BIN)/.ready
	$(BIN)/python -m benchmarks.plan_matrix
	$(BIN)/python -m benchmarks.probe_core
	$(BIN)/python -m benchmarks.evaluation

# How often intervals and tests keep what they promise: the tables of docs/honesty.md. Each is kept in build/honesty
# once it is finished; what was stopped goes on with the next one.
honesty: $(BIN)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.honesty $(PARTS)

# The study of docs/finding.md, one to two hours of two CPU cores, then its tables, figure and report. What is done is kept.
finding: $(BIN)/.ready
	$(BIN)/engine execute specs/studies/finding.toml
	$(BIN)/python docs/finding/make.py stores/finding
	$(BIN)/engine report stores/finding --output docs/finding/report.html

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

# Draws every figure of store.plots, from a synthetic store, for docs/gallery.md.
gallery: $(BIN)/.ready
	$(BIN)/python docs/gallery/make.py

# The documentation as a site, build/site/index.html; a link that leads nowhere is an error. Once .venv-docs is there,
# this needs no network. It reads this project's code and does not import it. The search works where the site is served
# (`python3 -m http.server --directory build/site`).
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

DOCS = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])

.venv-docs/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet $$($(PYTHON) -c '$(DOCS)')
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest .venv-lock .venv-docs build *.egg-info
