# Two commands: `make demo` and `make test`. Both need only Python 3.11 or newer, make and a package registry.

# The first of these that runs and is new enough; `make PYTHON=/path/to/python` decides otherwise.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# worksteal: neighbours stay on one core, so that what the tests of a file share is made once.
PARALLEL := -n 2 --dist worksteal

.NOTPARALLEL:
.PHONY: help demo test test-quick lint format clean

help:
	@echo 'make demo    fit two real data sets; plots and posteriors go to ./demo_output'
	@echo 'make test    run the test suite (PYTEST_ARGS="-k name" for a part of it)'
	@echo 'make test-quick  the part of it for the work in between: every room in minutes'
	@echo 'make lint    ruff check, ruff format --check, mypy'
	@echo 'make format  let ruff format and mend what it can'
	@echo 'make clean   remove the environment, the caches and the output'

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/coal_mining.py --output demo_output
	$(BIN)/python examples/eight_schools.py --output demo_output

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-quick: $(VENV)/test.stamp
	$(BIN)/python -m pytest $(PARALLEL) --quick $(PYTEST_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo_output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, one stamp per extra, made again only when pyproject.toml changes.
$(VENV)/%.stamp: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@'$(PYTHON)' -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  echo 'autovi needs Python 3.11 or newer, and "$(PYTHON)" is not that.'; \
	  echo 'Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)'; exit 1; }
	@'$(PYTHON)' -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo 'Could not make an environment. On Debian and Ubuntu: apt install python3-venv'; exit 1; }
