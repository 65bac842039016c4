# Each of these first installs everything that it needs:
# make run: train 32 agents.  make test: run the linter, the type checker and the tests that are not slow.
# make docs: build the documentation as a site.  make notebooks: execute the notebooks in place.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed

.PHONY: run install test test-slow lint docs notebooks clean

run: install
	$(VENV)/bin/python -m ddpg_jax.run --seeds 32

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ddpg_jax needs Python 3.11 or later; choose one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $(STAMP)

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

clean:
	rm -rf $(VENV) build site docs/api *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
