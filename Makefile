# Every target sets up what it needs; nothing but python3, java and make is asked of the machine.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV := benchmarks/.venv
BENCH_READY := $(BENCH_VENV)/.ready
CODE := $(wildcard include plugins dags tests benchmarks docker)
TYPED := $(filter-out benchmarks plugins,$(CODE)) $(filter-out %__pycache__/,$(wildcard plugins/*.py plugins/*/))
COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" --quiet

define PYTHON_MISSING
Naviglio needs Python 3.11 to 3.14 with its venv module, and found none as `$(PYTHON)`. Install it:
  Debian, Ubuntu:  sudo apt-get install python3 python3-venv
  Fedora:          sudo dnf install python3
  macOS:           brew install python@3.13
or name another one: make PYTHON=/path/to/python3.13 ...
endef
export PYTHON_MISSING

define JAVA_MISSING
Note: Spark transforms need Java 17 or newer; all else works without it. Install it:
  Debian, Ubuntu:  sudo apt-get install openjdk-17-jre-headless
  Fedora:          sudo dnf install java-21-openjdk-headless
  macOS:           brew install openjdk@17
endef
export JAVA_MISSING

.PHONY: help setup demo test check chaos bench start stop airflow lock clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Create .venv with everything pinned in requirements.txt

demo: $(READY) ## Play a few days of New York's flights through a running Airflow
	@$(BIN)/naviglio demo play

test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder --durations=10

check: $(READY) ## Lint, format, types, import direction, documentation, containers
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy $(TYPED)
	@PYTHONPATH=include $(BIN)/lint-imports
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yaml
	@if docker compose version >/dev/null 2>&1; then docker compose --profile sqlserver config --quiet; \
	  else echo "docker compose is not here: its own check of docker-compose.yaml is skipped"; fi
	@$(BIN)/python -m pytest -q tests/unit/test_docs.py tests/unit/test_docker.py

chaos: $(READY) ## Kill and freeze real processes at every commit: the whole matrix
	@NAVIGLIO_CHAOS_FULL=1 $(BIN)/python -m pytest -q --durations=10 tests/chaos

bench: $(READY) $(BENCH_READY) ## Measure speed and memory (docs/benchmarks.md)
	@NAVIGLIO_BENCH_PYTHON=$(BENCH_VENV)/bin/python $(BIN)/python -m benchmarks

start: $(READY) ## Start the embedded server
	@$(BIN)/naviglio start

airflow: $(READY) ## Start an Airflow of this checkout over the embedded server
	@$(BIN)/naviglio airflow start

stop: $(READY) ## Stop Airflow, then the embedded server
	@$(BIN)/naviglio airflow stop
	@$(BIN)/naviglio stop

lock: $(READY) ## Resolve the dependencies anew into the lock files
	@$(COMPILE) --upgrade pyproject.toml --group deployment --group dev -o requirements.txt
	@$(COMPILE) --upgrade pyproject.toml --group deployment -c requirements.txt -o docker/requirements.txt
	@$(COMPILE) --upgrade --group benchmarks -o benchmarks/requirements.txt

clean: ## Stop the server; remove .venv, caches and the demo's data
	@if [ -d .naviglio ] && [ -x $(BIN)/naviglio ]; then $(BIN)/naviglio airflow stop; $(BIN)/naviglio stop; fi
	@rm -rf .naviglio $(VENV) $(BENCH_VENV) .*_cache .hypothesis include/*.egg-info

# uv installs in seconds what takes pip minutes. It and setuptools, which builds what has no wheel, come
# by their hashes too: nothing unpinned is fetched.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	  || { echo "$$PYTHON_MISSING" >&2; exit 1; }
	@major=$$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' || true); \
	  [ "$${major:-0}" -ge 17 ] || echo "$$JAVA_MISSING" >&2
	@echo "Setting up $(VENV): a minute or two, once" >&2
	@$(PYTHON) -m venv $(VENV)
	@awk '/^[a-z]/{on=/^(uv|setuptools)==/} on' requirements.txt > $(VENV)/first.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/first.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --no-build-isolation -r requirements.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(BENCH_READY): benchmarks/requirements.txt $(READY)
	@$(PYTHON) -m venv --without-pip $(BENCH_VENV)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BENCH_VENV)/bin/python --require-hashes -r $<
	@touch $@
