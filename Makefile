# The doors of this repository. Each sets up what it needs with Python >= 3.11 and make; what else
# one needs (a container engine, RabbitMQ, Chromium) its line says.

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -eu -c
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
LOCK := config/constraints.txt
EXTRAS := postgres,embedded,simulator,flower,web
ARGS ?=

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## The virtual environment with locked dependencies, in .venv

# The first Python that runs, is new enough and can make virtual environments; PYTHON=… goes first.
$(VENV)/.ready: pyproject.toml $(LOCK)
	@if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$${found:-}" ]; then \
	    echo 'No Python >= 3.11 with the venv module on PATH: install one (on Debian also its' \
	      'python3-venv package) or name it: make setup PYTHON=/path/to/python3' >&2; exit 1; fi; \
	  echo "Setting up $(VENV) with $$("$$found" --version), once; it takes about a minute …"; \
	  rm -rf $(VENV); "$$found" -m venv $(VENV); \
	else echo "Bringing $(VENV) up to date with $(LOCK) …"; fi
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint $(LOCK) --upgrade pip
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-warn-script-location \
	  --constraint $(LOCK) --build-constraint $(LOCK) --group dev --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup ## The main job on real text: the whole stack starts, works, shows what it saved, stops
	@$(BIN)/python -m worker.demo $(ARGS)

up: setup ## The same stack, kept running: two workers, Flower, the page; Ctrl-C stops it
	@$(BIN)/python -m worker.up $(ARGS)

check: format lint types test ## All that a change has to pass

format: setup ## Formats the code
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --select I --fix .

lint: setup ## Style and likely mistakes
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check .

types: setup ## Types
	@$(BIN)/mypy

test: setup ## The tests, with real services started for them; ARGS="tests/cli -k doctor" picks some
	@$(BIN)/python -m pytest -m "not chaos and not compose and not browser" --ignore tests/brokers \
	  --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

crash: setup ## A worker is killed at every place between two side effects, in turn
	@$(BIN)/python -m pytest -m chaos $(ARGS)

chaos: setup ## All is broken at random for 3 minutes; ARGS="--seconds 1800 --rate 60 --database postgres"
	@$(BIN)/python -m tests.chaos $(ARGS)

browser: setup ## The tests that look at the page in Chromium, if it is installed
	@$(BIN)/python -m pip install --quiet --constraint $(LOCK) --group browser
	@$(BIN)/python -m pytest -m browser $(ARGS)

brokers: setup ## The tests over RabbitMQ and over every kind of Redis (needs rabbitmq-server)
	@$(BIN)/python -m pytest tests/brokers $(ARGS)

compose: setup ## The whole stack in containers: kills, scaling, restarts, backups (needs an engine)
	@$(BIN)/python -m pytest -m compose tests/compose $(ARGS)

docs: setup ## The documentation as a site in site/, built strictly and without the network
	@$(BIN)/python -m pip install --quiet --constraint $(LOCK) --group docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet && echo "site/index.html"

release: setup ## Wheel and sdist in an empty environment of every Python from 3.11 to 3.14 here
	@.ci/release

secrets: ## Random passwords for docker compose, in .secrets/run/; what is there stays
	@config/make-secrets.sh

bench: setup ## The benchmarks, with a table of figures
	@$(BIN)/python -m benchmarks $(ARGS)

wheel: setup ## The wheel and the source distribution, in dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation --outdir dist . >dist.log 2>&1 || { cat dist.log; rm dist.log; exit 1; }
	@rm dist.log
	@ls dist

lock: ## Moves every dependency to its newest release and writes config/constraints.txt anew
	@rm -rf $(VENV) && sed -i '/^[A-Za-z][^;]*$$/d' $(LOCK) && $(MAKE) setup
	@$(BIN)/python -m pip freeze --all --exclude-editable | grep -v '^setuptools=' >> $(LOCK)

clean: ## Removes all that was made, but the secrets: .venv, .lowtide, dist, site and caches
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
	@rm -rf $(VENV) .lowtide dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup demo up check format lint types test crash chaos browser brokers compose docs release secrets bench wheel lock clean
