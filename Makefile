# Everything is installed into .venv, from hash-checked locks; a second run is instant.
#
#   make demo    the whole story on this machine, from manifests to devices and back
#   make test    lint, types, architecture, and every test, real servers included

PYTHON ?= python3
BIN    := .venv/bin
UV     := $(BIN)/uv
LOCK   := $(CURDIR)/$(UV) pip compile --quiet --universal --python-version 3.11 \
          --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

# A file's tests stay on one worker, which makes what they share once; the slowest files come first.
TWO    := -n 2 --dist loadfile --no-loadscope-reorder

export PYTHONUNBUFFERED = 1
# uv reads none of pip's settings, and CPU wheels of PyTorch may be where those say.
export PIP_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
export NO_MKDOCS_2_WARNING = 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-system lint format lock docs docs-serve bench wheel clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: .venv/.demo ## Run the whole story; leaves its state in .demo/
	@$(BIN)/python demo/story.py

install: .venv/.dev ## Install edgectl with all extras and the development tools

test: lint test-system ## Run the checks and every test, slow ones and real servers included
	@$(BIN)/pytest $(TWO)

test-fast: .venv/.dev test-system ## Run the tests that need no minutes, without the checks
	@$(BIN)/pytest $(TWO) -m "not slow"

lint: .venv/.dev ## Check style, types, layers and the generated reference
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

format: .venv/.dev ## Format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: .venv/.dev ## Build the documentation into site/
	@$(BIN)/python docs/generate.py
	@$(BIN)/mkdocs build --strict

docs-serve: .venv/.dev ## Serve the documentation while writing it
	@$(BIN)/mkdocs serve --strict

bench: .venv/.dev test-system ## Run the benchmarks of docs/benchmarks.md
	@$(BIN)/python -m tests.bench

wheel: .venv/.dev ## Build the wheel into dist/
	@$(UV) build --quiet --wheel --no-build-isolation

lock: .venv/.bootstrap ## Lock again; UPGRADE=1 takes the newest versions
	@$(LOCK) --all-extras pyproject.toml -o requirements/dev.txt
	@$(LOCK) --extra build --extra device -c requirements/dev.txt pyproject.toml -o requirements/demo.txt
	@$(LOCK) -c requirements/dev.txt requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(LOCK) -c requirements/dev.txt requirements/arm64.in -o requirements/arm64.txt
	@for builder in builders/*/; do (cd $$builder && $(LOCK) requirements.in -o requirements.lock) || exit; done

clean: ## Remove everything that make made
	@rm -rf .venv .demo site dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Stamps. The bootstrap is the only use of pip: it brings uv and the build backend, by hash.

.venv/.bootstrap: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'edgectl needs Python 3.11 or newer; name one: make PYTHON=python3.12' >&2; exit 1; }
	@echo 'making .venv'
	@$(PYTHON) -m venv --clear .venv || \
	  { echo 'cannot make a virtual environment; on Debian: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/.demo: requirements/demo.txt pyproject.toml .venv/.bootstrap
	@echo 'installing edgectl into .venv'
	@$(UV) pip install --quiet --require-hashes -r $<
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements/dev.txt pyproject.toml .venv/.bootstrap
	@echo 'installing edgectl and the development tools into .venv'
	@$(UV) pip sync --quiet --require-hashes $< requirements/bootstrap.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@ .venv/.demo

# The servers that the tests talk to, as Debian packages; what is there already stays as it is.

test-system:
	@.github/scripts/install-test-servers.sh
