# Everything a developer and a CI machine run. A fresh clone needs Python >= 3.11 and make.
#
#   make fuzz FUZZ_ARGS='--target layer_norm --time 5m'
#   make test PYTEST_ARGS='tests/oracle -x'
#   make test VENV=.venv-3.12 PYTHON=python3.12

SHELL  := bash
VENV   ?= .venv
PYTHON ?=
# Tools run as modules: an interpreter that lends its packages does not lend their scripts.
RUN    := $(VENV)/bin/python
export VENV PYTHON

.DEFAULT_GOAL := help
.PHONY: help fuzz bench test lint layers types pytest battery browser ray mutation branches format \
        setup setup-dev clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

fuzz: setup  ## fuzz the built-in kernels on whatever device there is
	$(VENV)/bin/ln-fuzz run $(FUZZ_ARGS)

test: lint types pytest  ## lint, types, then the test suite

bench: setup  ## measure the kernels against other libraries (needs a GPU)
	$(RUN) -m ln_kernels.bench $(BENCH_ARGS)

lint: setup-dev layers  ## ruff (rules and format), the import rules, workflows and shell scripts
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m ci.workflows

layers: setup-dev  ## the import rules alone
	$(RUN) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo

types: setup-dev  ## mypy --strict on oracle, fuzz and the benchmark
	$(RUN) -m mypy

# The limit is for a test that hangs; none should come near it.
pytest: setup-dev  ## the test suite, without the slow tests
	$(RUN) -m pytest -n logical --dist worksteal --timeout 120 -m 'not slow and not browser' $(PYTEST_ARGS)

# The crashes last and by themselves: they start runners of their own, and count seconds.
battery: setup-dev  ## the tests that are too slow for `make test`
	$(RUN) -m pytest -n logical --dist worksteal --timeout 1800 -m slow --ignore tests/crashes
	$(RUN) -m pytest --timeout 3600 --capture=no -m slow tests/crashes

browser: setup-dev  ## the report page in Chromium (CHROMIUM names it)
	$(RUN) -m pytest --timeout 120 -m browser tests/browser

ray: setup-dev  ## nights on a Ray cluster of two nodes, one of which is killed; installs Ray
	$(RUN) -m pip install --quiet --disable-pip-version-check -e '.[ray]' --no-build-isolation
	$(RUN) -m pytest --timeout 600 -m slow tests/fuzz/nights/test_ray_fleet.py

mutation: setup-dev  ## which small changes to the judging code no test sees
	$(RUN) -m pip install --quiet 'mutmut>=3.8.1,<3.9'
	$(RUN) -m ci.mutation $(MUTATION_ARGS)

branches: setup-dev  ## which branches of the strategies could go without a test failing
	$(RUN) -m ci.branches $(BRANCHES_ARGS)

format: setup-dev  ## rewrite the sources in the project's format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

setup:
	@ci/setup.sh run

setup-dev:
	@ci/setup.sh dev

clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
