# Everything runs in .venv, which the first target called makes; nothing else is needed but Python 3.11 or newer.
# Looked for from / because pyenv obeys .python-version, which is for the platforms, and fails where that one is missing.
PYTHON ?= $(shell cd / && for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys.executable)' 2>/dev/null && break; done)
BIN := .venv/bin
PARALLEL := -n 4 --dist loadgroup
SIM := http://127.0.0.1:4000

.PHONY: demo run bench soak screenshots test test-fast check help clean
.DELETE_ON_ERROR:  # or a .venv that failed half-way, as without Debian's python3-venv, would count as made

demo: .venv/run  ## the service on port 3000 with three keys of a simulated Groq
	@PYTHON_DOTENV_DISABLED=1 $(BIN)/python tools/groqsim.py --port 4000 --latency 0.3 \
		--key gsk_demo_1=org_demo1 --key gsk_demo_2=org_demo2 --key gsk_demo_3=org_demo3 & sim=$$!; \
	trap 'kill $$sim $$app 2>/dev/null; wait' EXIT INT TERM; \
	echo; echo "Try, in another terminal:"; echo; \
	echo "  curl http://localhost:3000/enhance -H 'Content-Type: application/json' -d '{\"prompt\": \"write a poem about rain\"}'"; \
	echo "  curl http://localhost:3000/health"; echo; \
	echo "Have Groq refuse key #1 once, then enhance three times and look at /health again:"; echo; \
	echo "  curl $(SIM)/sim/faults -d '{\"name\": \"rate_limit\", \"key\": \"gsk_demo_1\", \"retry_after\": 30}'"; echo; \
	PYTHON_DOTENV_DISABLED=1 PORT=3000 GROQ_BASE_URL=$(SIM) GROQ_API_KEYS=gsk_demo_1,gsk_demo_2,gsk_demo_3 $(BIN)/gunicorn & app=$$!; \
	wait $$app

run: .venv/run  ## the service with your .env
	$(BIN)/gunicorn

bench: .venv/run  ## what it can do, measured: eight minutes; writes docs/bench.md
	$(BIN)/python tools/bench.py

soak: .venv/run  ## 20,000 requests while Groq fails and clients misbehave: three minutes
	$(BIN)/python tools/soak.py

test: .venv/dev  ## the tests, four at a time, since most of them wait
	$(BIN)/pytest $(PARALLEL)

test-fast: .venv/dev  ## those of the service that need no server, browser or Redis: ten seconds
	$(BIN)/pytest -n 2 -m "not live" --ignore tests/test_groqsim.py

check: .venv/dev  ## style, types and tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/actionlint .github/workflows/*.yml
	$(BIN)/mypy
	$(BIN)/pytest $(PARALLEL)

screenshots: .venv/dev  ## the pictures in docs/, taken with Debian's chromium and fonts-inter
	$(BIN)/python tools/screenshots.py

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

clean:
	rm -rf .venv .*_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: https://www.python.org/downloads/"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/run: requirements.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

.venv/dev: requirements-dev.txt .venv/run
	$(BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
