# make demo: a Mamba network trained on real MRI and a scan segmented, from nothing but Python >= 3.10
# make test: the whole CPU test suite
# Both create .venv and install the project into it; nothing is compiled.

PYTHON ?= python3
VENV ?= .venv
WORK ?= work_dirs/demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

.PHONY: demo test lint docs clean help

help:
	@sed -n 's/^# //p' Makefile

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# An extra is installed once; a change of setup.cfg installs it again.
$(VENV)/.installed-%: setup.cfg setup.py pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/python tools/demo.py --work-dir $(WORK)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) work_dirs build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
