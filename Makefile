# Two commands on a bare machine: `make demo` and `make test`. `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null || echo $(BIN)/uv)
export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS := never
# Copying works on every file system and keeps caches intact; links would warn across devices.
export UV_LINK_MODE := copy

.PHONY: setup demo test faults check up lint audit bench clean

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jivs_pipeline needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

# uv comes from PyPI into the environment where the machine has none.
$(STAMP): pyproject.toml uv.lock | $(BIN)/python
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.9'
	$(UV) sync --frozen --quiet --inexact --no-dev
	@# Dagster takes four seconds to import without byte code and less than one with it.
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib jivs_pipeline >/dev/null 2>&1 || true
	@touch $@

$(STAMP)-dev: $(STAMP)
	$(UV) sync --frozen --quiet --inexact
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

demo: $(STAMP)
	$(BIN)/jivs demo

up: $(STAMP)
	$(BIN)/jivs up

test: $(STAMP)-dev
	$(BIN)/python -m pytest

# All rounds of all faults, about an hour. JIVS_TEST_SEED=… repeats a run, or goes on with one that was interrupted.
faults: $(STAMP)-dev
	JIVS_TEST_FAULTS=full $(BIN)/python -m pytest -m faults jivs_pipeline_tests

lint: $(STAMP)-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

check: lint test

# Needs the registry's advisories, which not every network lets through; hence no part of check.
audit: $(STAMP)-dev
	$(BIN)/pip-audit --progress-spinner off

# Against raw pipes and the peers, which it installs; `make bench SF=0.1 ONLY=rows,whole` is a short one. See benchmarks/.
SF ?= 1
ROUNDS ?= 3
ONLY ?= rows,whole,rules,mariadb,sqlite,parquet,many

bench: $(STAMP)-dev
	$(BIN)/python -m benchmarks.compare --scale $(SF) --rounds $(ROUNDS) --only $(ONLY)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist
