# Everything a fresh machine needs; `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help run test check format bench soak clean

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(READY)

run: $(READY)    ## run a local gateway for development (Ctrl-C stops it)
	$(BIN)/gateway localserve

test: $(READY)   ## run all tests
	$(BIN)/python -m pytest

check: $(READY)  ## format, lint, types and tests: what continuous integration runs
	$(BIN)/ruff format --check gateway plugins tests benchmarks
	$(BIN)/ruff check gateway plugins tests benchmarks
	$(BIN)/mypy gateway plugins tests
	$(MAKE) test

format: $(READY) ## format the code and sort its imports
	$(BIN)/ruff check --fix gateway plugins tests benchmarks
	$(BIN)/ruff format gateway plugins tests benchmarks

bench: $(READY)  ## run the benchmarks and print a table
	$(BIN)/python -m benchmarks

clean:           ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
