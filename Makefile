# `make setup` builds a virtual environment in .venv; every other target uses it and builds it if need be.
# Choices, e.g. `make setup PYTHON=python3.12 TORCH=torch==2.12.0 PIP_ARGS="--extra-index-url URL"`:
PYTHON ?= python3
TORCH ?= $(shell grep '^torch==' constraints.txt)
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check install $(PIP_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench tiny clean

help:  ## say what the targets do
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(INSTALLED)  ## build .venv and install rekv with the tested versions

demo: $(INSTALLED)  ## play a generated video as a stream and ask questions as it goes
	$(BIN)/rekv demo

test: $(INSTALLED)  ## run all tests
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

check: $(INSTALLED)  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)  ## format the code, mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## run the benchmarks; results go to out/
	mkdir -p out
	$(BIN)/python benchmarks/speed.py --json out/speed.json
	$(BIN)/python benchmarks/needle.py --set base --json out/needle-base.json
	$(BIN)/python benchmarks/needle.py --set hard --json out/needle-hard.json
	$(BIN)/python benchmarks/dual.py --json out/dual.json

tiny: $(INSTALLED)  ## train the built-in model again: minutes on a GPU, hours on two cores; interrupted, it goes on where it was
	$(BIN)/python -m training --out out/training

clean:  ## remove .venv, caches and results
	rm -rf $(VENV) out build dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch is a step of its own: it is by far the largest, and TORCH may name another build than the tested one.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	@echo "Installing PyTorch (the largest part by far; a build for GPUs is some gigabytes) ..."
	$(PIP) -c $(VENV)/constraints.txt "$(TORCH)"
	@echo "Installing rekv and what else it needs ..."
	$(PIP) --quiet -c $(VENV)/constraints.txt -e ".[report,quantized,cluster,dev]"
	@touch $@
	@echo "Ready: $(BIN)/rekv --help"

# pip is the last thing that venv writes: an interrupted step is taken up again.
$(BIN)/pip:
	@command -v $(PYTHON) > /dev/null || { \
	  echo "No '$(PYTHON)' here: install Python 3.11 or newer, or name it: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "rekv needs Python 3.11 or newer and '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	    "name another one: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "Python's venv module is missing: install it (Debian, Ubuntu: sudo apt install python3-venv)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
