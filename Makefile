# Everything a developer or a newcomer runs. Needs Python 3.11, git and make; the rest is set up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
# Tests wait more than they work; each process has a database and a stack of its own.
TEST_PROCESSES ?= 3
# Tools that look at the packages, in an environment of their own.
AUDIT := .venv-audit/bin
AUDIT_STAMP := .venv-audit/.installed
LICENCES := MIT;BSD;Apache;Python Software Foundation;PSF;Mozilla Public License;MPL-2.0;LGPL;ISC;Zlib

.DEFAULT_GOAL := help
.PHONY: help install demo up test faults fuzz year check format lint types imports openapi bench bench-sandbox \
	lock backup-test audit licences sbom secrets clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Set up .venv, nothing else

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## Start everything, scan 25,000 sandbox deals, show the result, end
	$(BIN)/hubspot-deals demo

up: $(STAMP) ## Start everything and leave it running; ARGS="--hubspot-url …" passes options
	$(BIN)/hubspot-deals up $(ARGS)

test: $(STAMP) ## Unit, contract, integration and end-to-end tests
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

faults: $(STAMP) ## Kill and freeze everything during scans (half an hour); writes docs/reliability.md
	$(BIN)/python -m pytest tests/faults -m faults --write-report $(PYTEST_ARGS)

fuzz: $(STAMP) ## Send the API 20,000 requests made from its OpenAPI document (five minutes)
	$(BIN)/python -m pytest tests/fuzz -s --show-capture=no $(PYTEST_ARGS)

year: $(STAMP) ## Synchronize a simulated year and compare each copy (an hour); writes docs/sync-year.md
	$(BIN)/python tests/syncs/year.py --write $(ARGS)

check: format lint types imports ## Format, lint, types, import rules

format: $(STAMP) ## Format the code
	$(BIN)/ruff format .

lint: $(STAMP) ## Lint the code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## Check types
	$(BIN)/mypy

imports: $(STAMP) ## Check the import rules
	$(BIN)/lint-imports

openapi: $(STAMP) ## Write openapi.json anew
	$(BIN)/python -m api.openapi

bench: $(STAMP) ## Measure everything beside its floor (an hour); ARGS="--only reading" for one part
	$(BIN)/python -m benchmarks $(ARGS)

bench-sandbox: $(STAMP) ## Measure how many pages a second the sandbox serves
	$(BIN)/python benchmarks/sandbox_pages.py

backup-test: $(STAMP) ## Back up under a running scan, restore, and let the scan go on
	$(BIN)/python -m pytest tests/e2e/test_backup.py $(PYTEST_ARGS)

$(AUDIT_STAMP):
	$(PYTHON) -m venv .venv-audit
	$(AUDIT)/python -m pip install --quiet --disable-pip-version-check \
		pip-audit==2.10.1 pip-licenses==5.5.5 cyclonedx-bom==7.5.0
	@touch $@

audit: $(AUDIT_STAMP) ## Look for known vulnerabilities in every pinned package; AUDIT_ARGS="-s osv" asks elsewhere
	$(AUDIT)/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(AUDIT_ARGS)

licences: $(STAMP) $(AUDIT_STAMP) ## Write dist/licences.md; fails on a licence that is not allowed
	@mkdir -p dist
	$(AUDIT)/pip-licenses --python $(BIN)/python --packages $$(cut -d= -f1 constraints.txt) \
		--partial-match --allow-only "$(LICENCES)" --format markdown --with-urls --output-file dist/licences.md

sbom: $(STAMP) $(AUDIT_STAMP) ## Write dist/sbom.json, a CycloneDX list of what is installed
	@mkdir -p dist
	$(AUDIT)/cyclonedx-py environment $(VENV) --output-reproducible --pyproject pyproject.toml -o dist/sbom.json

secrets: ## Make the secrets of docker-compose.yml
	deploy/secrets.sh

lock: $(STAMP) ## Write constraints.txt from what is installed
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check > constraints.txt

clean: ## Remove the set-up and what the local stack stored
	rm -rf $(VENV) .venv-audit dist .hubspot-deals .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
