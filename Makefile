# SPDX-License-Identifier: GPL-2.0-or-later
# Needs Python 3.11 or later and make. Everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed.stamp
GUESTS := $(VENV)/guests.stamp
DOCS := $(VENV)/docs.stamp
PACKAGES := .packages/fetched.stamp
GUEST_SOURCES := $(wildcard guest/*.py guest/*/*.[chS] guest/*/*.ld) \
	$(wildcard harness/conformance/*.py) harness/architecture.py harness/paging_modes.py \
	harness/hypercalls.py harness/mm_walk_layout.py kernel_model/arch_i386/page.py \
	kernel_model/mm/page_flags.py $(wildcard kernel_model/structs/*.py)
BUILD_REQUIRES := import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

.PHONY: help demo test slow packages lint bench docs coverage-page clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 15

demo: $(GUESTS) ## boot the model, run a guest, compare every translation
	$(BIN)/mmucheck boot
	$(BIN)/mmucheck run hello
	$(BIN)/mmucheck diff

test: $(GUESTS) $(PACKAGES) ## the test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m "not slow"

slow: $(GUESTS) $(PACKAGES) ## the tests that take long
	$(BIN)/python -m pytest -n auto --maxprocesses 8 -m slow --timeout 600

packages: $(GUESTS) ## try again to fetch the i386 programs that tests run
	rm -f $(PACKAGES)
	$(MAKE) --no-print-directory $(PACKAGES)

lint: $(GUESTS) ## format, rules, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --preview $(wildcard *.md docs/*.md docs/*/*.md)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(GUESTS) $(PACKAGES) ## the benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-only

docs: $(DOCS) coverage-page ## the documentation: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

coverage-page: $(INSTALLED) ## docs/coverage-of-the-book.md, from the tests' markers
	$(BIN)/python -m tests.book.coverage

clean: ## remove everything that was made
	rm -rf $(VENV) .packages build dist guest/built .benchmarks .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The build requirements go into .venv too, so that guests are rebuilt there without pip.
$(INSTALLED): pyproject.toml hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit("mmucheck needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c '$(BUILD_REQUIRES)' > $(VENV)/build-requires.txt
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/build-requires.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[test,lint]'
	touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[docs]'
	touch $@

$(GUESTS): $(INSTALLED) $(GUEST_SOURCES)
	$(BIN)/python -m guest.build
	touch $@

# Where they cannot be had this says so once, and the tests of them are skipped.
$(PACKAGES): tests/packages.py | $(INSTALLED)
	$(BIN)/python -m tests.packages
	touch $@
