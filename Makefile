# Two commands do everything on a fresh machine: `make film` and `make test`.
PYTHON ?= python3
PIP_OPTIONS ?=
PROMPT ?= Rocket takes off from the ground, fire, sky, airplane
export PROMPT
VENV := .venv
BIN := $(VENV)/bin

.PHONY: film test lint format evaluate clean

film: $(VENV)/installed  ## install, then make a film of a rocket taking off
	$(BIN)/python app.py film "$$PROMPT"

test: $(VENV)/installed-dev lint  ## install, then run every test
	$(BIN)/python -m pytest

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

evaluate: $(VENV)/installed-dev  ## judge the demo checkpoints; minutes
	$(BIN)/python -m training.evaluate

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	|| { echo "Stillmotion needs Python 3.11 to 3.13; say which with: make film PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time this takes minutes."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	@echo "Installing into $(VENV); the first time this takes minutes."
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) -r requirements-dev.txt
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
