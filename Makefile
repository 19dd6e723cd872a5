# The front doors; `make` alone lists them. CI, pre-commit and people all come in here.
#
#   make PYTHON=python3.12 quickstart      another interpreter for .venv
#   make test TESTS=tests/test_plan.py     some of the tests
#   make test ARGS="-x -k seeds"           more for pytest
#   make test PARALLEL=                    in one process
#   make faults N=40 SEED=7                fewer faults, chosen as in another run

PYTHON ?= python3
TESTS ?=
ARGS ?=
N ?= 200
SEED ?=
PARALLEL ?= --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

BIN := .venv/bin
SLOW := $(wildcard tests/faults tests/cluster tests/browser)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary --no-compile

# Bytecode is kept where this is otherwise set: without it each of Ray's workers, and each start of
# the command, compiles torch again (13 s). pip's own compiling of everything costs a minute more
# than compiling what is imported, hence --no-compile.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-all test-gpu faults containers check audit bench clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  while IFS='|' read -r name what; do printf '%-16s %s\n' "$$name" "$$what"; done

quickstart: .venv/.ready-run ## install what is needed, train the example study, show its table
	$(BIN)/sweeps run quickstart

test: .venv/.ready-test ## the tests, in random order, without the slow folders
	$(BIN)/pytest $(PARALLEL) $(TESTS) $(ARGS)

test-all: .venv/.ready-test ## every test: more cases, and faults, cluster and browser where there
	SEEDSWEEP_ALL=1 $(BIN)/pytest $(PARALLEL) $(ARGS)
	@set -e; for folder in $(SLOW); do echo "== $$folder"; \
	  SEEDSWEEP_ALL=1 $(BIN)/pytest "$$folder" $(ARGS); done

test-gpu: .venv/.ready-test ## the contracts of packs on CUDA, where torch sees a GPU
	$(BIN)/pytest tests/gpu $(ARGS)

faults: .venv/.ready-test ## N random faults (200) against real sweeps; SEED as printed by another run
	$(BIN)/python tests/faults/harness.py --faults $(N) $(addprefix --seed ,$(SEED))

containers: .venv/.ready-test ## the image and a cluster of containers: a study, a killed worker, MLflow's page
	$(BIN)/python tests/containers/harness.py $(ARGS)

check: .venv/.ready-check ## format, lint, types, import direction, files of clusters and containers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python cluster/check_config.py
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml
	$(BIN)/hadolint docker/Dockerfile tests/containers/postgres.Dockerfile
	$(BIN)/python docker/check_kuberay.py

# Without advisories pip-audit finds nothing wrong and ends with 0: hence a question of which the
# answer is known (that version has some), and --strict, by which a package that could not be looked
# up is a failure. In an environment of its own, so that what it needs pins nothing of ours.
ADVISORIES := https://pypi.org/pypi/jinja2/2.4.1/json
audit: ## known weaknesses of the pinned dependencies, by pip-audit; needs PyPI's advisories
	@$(PYTHON) -c 'import json, sys, urllib.request as ask; \
	sys.exit(not json.load(ask.urlopen("$(ADVISORIES)", timeout=20))["vulnerabilities"])' \
	  2> /dev/null || { echo "make audit: $(ADVISORIES) has no advisories here, so nothing was \
	audited; run it on a machine that reaches PyPI itself, not a mirror of it" >&2; exit 2; }
	@test -x .make/audit/bin/pip-audit || { $(PYTHON) -m venv .make/audit && \
	  .make/audit/bin/pip install --quiet --disable-pip-version-check pip-audit; }
	.make/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip \
	  --progress-spinner off

bench: .venv/.ready-run ## every benchmark, side by side with what it is compared to
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

clean: ## remove .venv and caches; runs/ and mlflow.db are yours and stay
	rm -rf .venv .make build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	find models sweeps tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# What to install for which door.
.venv/.ready-run: EXTRAS :=
.venv/.ready-test: EXTRAS := [test]
.venv/.ready-check: EXTRAS := [test,check]

# Two makes at once wait for each other; the second then finds that all is done.
ifndef LOCKED
.venv/.ready-%: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "no $(PYTHON) here: seedsweep needs Python 3.11 \
	or newer; name yours: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "seedsweep needs Python \
	3.11 or newer, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12 $(MAKECMDGOALS)" \
	% sys.version_info[:2] or 0)'
	@$(PYTHON) -c 'import fcntl, os, sys; os.makedirs(".make", exist_ok=True); \
	lock = os.open(".make/lock", os.O_CREAT | os.O_RDWR); os.set_inheritable(lock, True); \
	fcntl.flock(lock, fcntl.LOCK_EX); \
	os.execvp(sys.argv[1], sys.argv[1:])' $(MAKE) --silent --no-print-directory LOCKED=1 $@
else
.venv/.ready-%: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || { echo "making .venv"; $(PYTHON) -m venv .venv; }
	@echo "installing seedsweep$(EXTRAS) and what it needs into .venv: minutes, once"
	@$(PIP) -c constraints.txt -e '.$(EXTRAS)'
	@touch $@
endif
