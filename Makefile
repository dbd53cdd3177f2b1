# Everything runs in .venv, which the first target called makes; nothing else is needed but Python 3.11 or newer.
# Looked for from / because pyenv obeys .python-version, which is for the platforms, and fails where that one is missing.
IS_NEW := import sys; sys.version_info < (3, 11) and sys.exit(1)
PYTHON ?= $(shell cd / && for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(IS_NEW); print(sys.executable)' 2>/dev/null && break; done)
BIN := .venv/bin
PARALLEL := -n 4 --dist loadgroup
PORT ?= 3000
SIM_PORT ?= 4000

.PHONY: demo run bench eval soak screenshots test test-fast lint check help clean

demo: .venv/run  ## the service on port 3000 with three keys of a simulated Groq
	@$(BIN)/python tools/demo.py $(PORT) $(SIM_PORT)

run: .venv/run  ## the service with your .env
	$(BIN)/python -m gunicorn

bench: .venv/run  ## what it can do, measured: ten minutes; writes docs/bench.md
	$(BIN)/python tools/bench.py

eval: .venv/run  ## how good the enhanced prompts are, asked of Groq with your .env; ARGS="--limit 30" for some
	$(BIN)/python tools/eval $(ARGS)

soak: .venv/run  ## 20,000 requests while Groq fails and clients misbehave: three minutes
	$(BIN)/python tools/soak.py

test: .venv/dev  ## the tests, four at a time, since most of them wait
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: .venv/dev  ## those of the service that need no server, browser or Redis: ten seconds
	$(BIN)/python -m pytest -n 2 -m "not live" --ignore tests/test_groqsim.py

lint: .venv/dev  ## style and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/actionlint .github/workflows/*.yml
	$(BIN)/python -m mypy

check: lint test  ## both

screenshots: .venv/dev  ## the pictures in docs/, taken with Debian's chromium and fonts-inter
	$(BIN)/python tools/screenshots.py

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

clean:
	rm -rf .venv .*_cache

# Made anew unless it is whole, and of a Python that will do: it may have been interrupted, or its Python may be gone.
ifneq ($(wildcard .venv/made),)
$(shell $(BIN)/python -c '$(IS_NEW)' 2>/dev/null || rm .venv/made)
endif

.venv/made:
	@$(or $(PYTHON),false) -c '$(IS_NEW)' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed: https://www.python.org/downloads/"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/run: requirements.txt .venv/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/dev: requirements-dev.txt .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
