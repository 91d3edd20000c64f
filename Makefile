# Needs make and Python 3.11. Everything is installed into .venv from constraints.txt; no GPU packages.
# Another package index or flags for pip: make demo PIP_FLAGS="--index-url ..."
PYTHON ?= python3.11
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRAINING := $(VENV)/.installed-training
BROWSER := $(VENV)/.installed-browser
PYTEST_FLAGS ?=
FULL ?=
AGAIN ?=
MINUTES ?= 0
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
POSTGRES_TESTS := tests/unit/feedback tests/web tests/laws/test_feedback_laws.py tests/cli/test_label_command.py
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-clean style proof test test-slow test-postgres test-browser screenshots lint docs emoji-model control-model look-model clean

help:  ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

venv: $(STAMP)  ## set up .venv (the other targets do it by themselves)

$(STAMP): constraints.txt pyproject.toml
	@echo "Setting up $(VENV) with pinned packages (once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt torch==2.13.0 setuptools
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[test]'
	@touch $@

$(TRAINING): $(STAMP)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[training]'
	@touch $@

demo: $(STAMP)  ## a whole study on the embedded model, from nothing to studies/demo/report.html; continues where it stopped
	@$(BIN)/hfi run recipes/demo.yaml

demo-clean:  ## remove the demo's study, so that the next `make demo` starts from nothing
	rm -rf studies/demo

style: $(STAMP)  ## the same for the style recipe: studies/style/report.html
	@$(BIN)/hfi run recipes/style.yaml

proof: $(STAMP)  ## every claim as a table, docs/proof.md: the declared subset; FULL=1 all; AGAIN=1 from nothing, beside the committed; MINUTES=90 stops cleanly
	@$(BIN)/python -m proof --minutes $(MINUTES) $(if $(FULL),--full) $(if $(AGAIN),--again)

test: $(STAMP)  ## the tests, under ten minutes on two cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser" $(PYTEST_FLAGS)

test-slow: $(STAMP)  ## the slow kinds: kill -9 in every stage, the wheel, the full demo
	@$(BIN)/python -m pytest -m slow $(PYTEST_FLAGS)

test-postgres: $(STAMP)  ## the feedback and labelling tests against a real PostgreSQL server on loopback (installs it from Debian's packages)
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || (echo "Installing PostgreSQL ..." && $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null)
	@$(BIN)/python tests/postgres.py $(BIN)/python -m pytest -m "not slow and not browser" $(POSTGRES_TESTS) $(PYTEST_FLAGS)

$(BROWSER): $(STAMP)
	@command -v chromium >/dev/null || (echo "Installing Chromium ..." && $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null)
	@command -v npm >/dev/null || (echo "Installing npm ..." && $(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null)
	@$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt -e '.[browser]'
	@npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix build/axe axe-core@4.14.1 >/dev/null
	@touch $@

test-browser: $(BROWSER)  ## the report and the labelling app in real Chromium (installs it from Debian's packages)
	@$(BIN)/python -m pytest -m browser tests/browser $(PYTEST_FLAGS)

screenshots: $(BROWSER)  ## a picture of every page of the labelling app, desktop and phone, light and dark: build/screenshots/
	@$(BIN)/python tests/browser/screenshots.py

lint: $(STAMP)  ## read the code for mistakes (ruff)
	@$(BIN)/ruff check .

docs: $(STAMP)  ## write docs/cli.md from the commands' own --help
	@$(BIN)/python -m hfi.cli.reference > docs/cli.md.new && mv docs/cli.md.new docs/cli.md

emoji-model: $(TRAINING)  ## train the embedded model again (hours on two cores; continues where it stopped)
	@$(BIN)/python -m training.emoji

control-model: $(TRAINING)  ## train the control, which never learned weapons nor the style fluent-ink (hours; continues where it stopped)
	@$(BIN)/python -m training.emoji.control

look-model: $(TRAINING)  ## train the model that draws red drops which no caption mentions, and the judges of them (continues where it stopped)
	@$(BIN)/python -m training.emoji.look

clean:  ## remove .venv and caches, never a study
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
