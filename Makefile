# On a fresh machine: `make run`, `make film` and `make test` install what they need first.
PYTHON ?= python3
PIP_OPTIONS ?=
OPTIONS ?=
PROMPT ?= Rocket takes off from the ground, fire, sky, airplane
export PROMPT
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run film test test-long test-page test-ray lint format evaluate lock clean

run: $(VENV)/installed  ## install, then serve the page and the API on this machine alone, at http://127.0.0.1:8000
	@echo "Starting Stillmotion for this machine alone; Ctrl-C ends it. Options: make run OPTIONS=\"--port 8080\""
	$(BIN)/python app.py serve $(OPTIONS)

film: $(VENV)/installed  ## install, then make a film of a rocket taking off
	$(BIN)/python app.py film "$$PROMPT"

test: $(VENV)/installed-dev lint  ## install, then run every test that is quick; test-long, test-page and test-ray are the others
	$(BIN)/python -m pytest -m "not ray and not page and not long"

test-long: $(VENV)/installed-dev  ## those that take long: fifty kills, films by the vendor's scripts, benchmarks
	$(BIN)/python -m pytest -m "long and not ray and not page"

test-page: $(VENV)/installed-dev  ## the page in a real browser; wants a Chromium (apt-get install chromium)
	$(BIN)/python -m pytest -m page tests/ui

test-ray: $(VENV)/installed-ray  ## several machines, played by this one: a cluster of Ray's; minutes
	$(BIN)/python -m pytest -n 0 -m ray tests/jobs/test_executors.py tests/jobs/test_afar.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

evaluate: $(VENV)/installed-dev  ## judge the demo checkpoints; minutes
	$(BIN)/python -m training.evaluate

lock:  ## write requirements*.lock with hashes, and docs/licences.md; OPTIONS=--upgrade takes newer versions
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --disable-pip-version-check --quiet pip==26.3 uv==0.13.9
	$(VENV)-lock/bin/python deploy/lock.py $(OPTIONS)
	rm -rf $(VENV)-lock

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

$(VENV)/installed-ray: requirements-ray.txt $(VENV)/installed-dev
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_OPTIONS) -r requirements-ray.txt
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
