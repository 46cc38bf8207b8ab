# Two targets for newcomers: `make demo` and `make test`. Both create the environment first.
PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= out/demo
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Workers share the machine: idle OpenMP threads must sleep instead of spinning.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install prepare demo picture test lint format clean

help:
	@echo "make demo    one portrait to an avatar, into $(DEMO_OUT)"
	@echo "make test    the test suite"
	@echo "make lint    ruff check and format check;  make format  applies them"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a few minutes the first time."
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

install: $(INSTALLED)

prepare: $(INSTALLED)
	@$(BIN)/python -c 'from fc4d_ray.assets.prepare import prepare_caches; prepare_caches(print)'

demo: prepare
	$(BIN)/fc4d demo --out $(DEMO_OUT)

# README's picture, from the demo's avatar.
picture: demo
	$(BIN)/python docs/images/demo_sheet.py $(DEMO_OUT)

test: prepare
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache
