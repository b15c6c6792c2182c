# Two commands do everything on a fresh machine: `make film` and `make test`.
PYTHON ?= python3
PIP_OPTIONS ?=
PROMPT ?= Rocket takes off from the ground, fire, sky, airplane
VENV := .venv
BIN := $(VENV)/bin

.PHONY: film test lint format evaluate clean

film: $(VENV)/installed  ## install, then make a film of a rocket taking off
	$(BIN)/python app.py film "$(PROMPT)"

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
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) -r requirements.txt
	touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) -r requirements-dev.txt
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
