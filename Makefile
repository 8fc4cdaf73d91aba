# The verbs of this project. `make demo` and `make test` need only Python 3.10+, make and a package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test test-slow test-weights lint bench bench-quick quality clean

help:            ## list the verbs
	@grep -E '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready  ## create the environment

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sowa needs Python 3.10 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready  ## train, adapt to four good pictures, find defects; pictures and tables in runs/demo
	$(BIN)/sowa demo

test: $(VENV)/.ready-test  ## all tests but the slow ones
	$(PYTEST) -n auto --dist loadfile -m "not slow and not weights"

test-slow: $(VENV)/.ready-test  ## the slow tests
	$(PYTEST) -m slow

test-weights: $(VENV)/.ready-test  ## tests that use the offline default's weights (fetched once)
	$(PYTEST) -m weights

lint: $(VENV)/.ready-test  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(VENV)/.ready  ## all benchmarks of speed and memory (under 30 minutes) into docs/performance
	$(BIN)/python benchmarks/run.py

bench-quick: $(VENV)/.ready  ## the same for a glance (3 minutes) into runs/bench-quick
	$(BIN)/python benchmarks/run.py --quick

quality: $(VENV)/.ready  ## how good SOWA Plus is on the locked images; tables in docs/results/quality (half an hour or more)
	$(BIN)/python benchmarks/quality.py --page docs/results/quality

clean:           ## remove the environment and all results
	rm -rf $(VENV) runs
