# sczoo: `make demo` shows it at work, `make test` tests it; both set everything up first.
#
#   PYTHON    interpreter to build the environment with (3.11 or newer)
#   VENV      folder of the environment
#   TORCH     the torch to install before everything else. A CPU build of this version that pip
#             finds on the machine is preferred over the larger one with CUDA.
#   JOBS      test processes
#   PYTEST    further arguments of pytest

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH ?= torch==2.13.0
JOBS ?= 2
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
# one thread per process: with several processes on few cores, more threads only wait
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export NUMBA_NUM_THREADS ?= 1

.PHONY: help demo test test-slow test-newest lint types tutorials pretrained bench tables docs format wheel clean

help:
	@echo "make demo   train, publish, reload and apply a model on real patients' cells (into demo/)"
	@echo "make test   the fast tests;   make test-slow   the slow ones"
	@echo "make lint   style;            make types       static types"

# --- environment ------------------------------------------------------------------------------

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "sczoo needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.sczoo: $(VENV)/.torch pyproject.toml
	$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.sczoo
	$(PIP) install --quiet --group dev
	@touch $@

# --- the two commands -------------------------------------------------------------------------

demo: $(VENV)/.sczoo
	$(VENV)/bin/sczoo demo --output demo

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m "not slow" -n $(JOBS) $(PYTEST)

# --- for developers ---------------------------------------------------------------------------

test-slow: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -m slow -n $(JOBS) $(PYTEST)

# the fast tests with the newest scvi-tools, on an interpreter that it supports
NEWER = python3.12 python3.13 python3.14 $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python3)
test-newest:
	@for python in $(NEWER); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then \
	    $(MAKE) test PYTHON=$$python VENV=.venv-newest TORCH='torch>=2.10' && exit 0 || exit 1; \
	  fi; \
	done; echo "no Python 3.12 or newer found: the tests with the newest scvi-tools are left out"

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.dev
	$(VENV)/bin/mypy

# run the tutorials and keep their output
tutorials: $(VENV)/.dev
	$(VENV)/bin/python docs/run_tutorials.py

# the zoo's own artefacts, those that registry.yaml does not have yet
pretrained: $(VENV)/.dev
	$(VENV)/bin/python -m sczoo.recipes

# every comparison with every peer, then the tables that the documentation shows. Each script goes on
# where it stopped: to measure anew, remove its file from benchmarks/results first. Many hours.
bench: $(VENV)/.dev
	cd benchmarks && for script in [a-z]*_*.py; do \
	  case $$script in build_*) ;; *) echo "== $$script"; ../$(VENV)/bin/python $$script || exit 1 ;; esac; \
	done
	$(MAKE) tables

tables: $(VENV)/.dev
	$(VENV)/bin/python benchmarks/tables.py

# the documentation, into docs/_build/html; every warning is an error
docs: $(VENV)/.dev
	$(PIP) install --quiet --group docs
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

wheel: $(VENV)/.dev
	$(VENV)/bin/python -m build --wheel

clean:
	rm -rf .venv .venv-newest demo dist docs/_build docs/api/parts docs/api/generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
