# Each of these first installs what it needs into .venv:
# make run: train 32 agents.  make test: run the linter, the type checker and the tests that are not slow.
# make docs: build the documentation as a site.  make notebooks: execute the notebooks in place.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: run install test test-slow lint docs notebooks lock clean

run: $(VENV)/run
	$(VENV)/bin/python -m ddpg_jax.run --seeds 32

install: $(VENV)/test

# What training needs is a part of what the tests need: .venv serves both.
$(VENV)/run: requirements.run.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ddpg_jax needs Python 3.11 or later; choose one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $$(grep -c == requirements.run.lock) packages into $(VENV): about a minute"
	$(PIP) install -r requirements.run.lock
	$(PIP) install --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/test: $(VENV)/run requirements.lock
	@echo "installing what the tests need, $$(grep -c == requirements.lock) packages: about two minutes"
	$(PIP) install -r requirements.lock
	touch $@

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test: lint
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist worksteal --durations=15

test-slow: lint
	$(VENV)/bin/python -m pytest -m slow

docs: install
	rm -rf docs/api site
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . site
	@echo "the documentation is in site/index.html"

notebooks: install
	$(VENV)/bin/python notebooks/execute.py

# Writes both lists of versions: what is installed now, and the part of it that training needs.
lock: install
	$(VENV)/bin/python -m pip freeze --all --exclude-editable --exclude pip > requirements.lock
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install --quiet --constraint requirements.lock --upgrade setuptools wheel .
	build/lock/bin/python -m pip freeze --all --exclude ddpg_jax --exclude pip > requirements.run.lock

clean:
	rm -rf $(VENV) build site docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
