# What a person types. Everything runs in .venv, made from the hashed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAB := tests/lab/lab
export PYINFRA_PROGRESS ?= off
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: venv lab-packages ## boot a lab host, deploy to it, ask the model a question
	$(BIN)/python -m tests.lab.demo

.PHONY: test
test: venv lab-packages ## everything: checks, unit tests, the lab end to end
	$(BIN)/python -m tests.run_all

.PHONY: test-faults
test-faults: venv lab-packages ## every fault of docs/reliability.md, and the table of what became of each: about an hour
	FAULT_ROUNDS=$${FAULT_ROUNDS:-100} $(BIN)/pytest -q tests/lab/faults

.PHONY: check
check: venv ## format, lint, types, unit tests: seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .
	@# two processes: those of tests/deploy and tests/oci mostly wait for processes of their own
	@$(BIN)/pytest -q tests/operations tests/deploy tests/oci & others=$$!; failed=; \
		$(BIN)/pytest -q tests/unit || failed=1; wait $$others && [ -z "$$failed" ]

.PHONY: format
format: venv ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: verify
verify: venv ## prove that the lab's hosts are what the inventory says
	$(BIN)/pytest tests/verify --inventory inventories/lab.py

.PHONY: lab-up
lab-up: venv lab-packages ## boot one lab host (N=3 for three)
	$(LAB) up $(or $(N),1)

.PHONY: lab-down
lab-down: ## remove the lab: hosts, network, mounts, processes
	$(LAB) down

.PHONY: bench
bench: venv ## time a run that changes nothing against an empty pyinfra run
	$(BIN)/python bench/noop.py

.PHONY: bundle
bundle: venv ## everything the hosts fetch, for a site without a network: OUTPUT=DIR URL=http://ADDRESS:PORT [INVENTORY=…]
	@[ -n "$(OUTPUT)" ] && [ -n "$(URL)" ] || { \
		echo "make bundle OUTPUT=DIR URL=http://ADDRESS:PORT, as the site's hosts will reach it (docs/supply-chain.md)"; exit 2; }
	$(BIN)/python -m operations.bundle make $(or $(INVENTORY),inventories/oci.py) --output "$(OUTPUT)" --url "$(URL)"

.PHONY: lock
lock: venv ## resolve requirements.lock anew from pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
		--no-emit-find-links --no-header --extra dev --extra lab --output-file requirements.lock pyproject.toml

.PHONY: venv
venv: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "installing python3-venv, which $(PYTHON) lacks"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@touch $@

# The lab's own Debian packages; `tests/lab/lab packages` names them.
.PHONY: lab-packages
lab-packages: venv
	@missing=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $$($(LAB) packages) 2>/dev/null \
		| awk '$$2 == "installed" { print $$1 }' | sort | comm -13 - <($(LAB) packages | tr ' ' '\n' | sort)); \
	if [ -n "$$missing" ]; then \
		echo "installing for the lab:" $$missing; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi

.PHONY: golden
golden: venv ## write the reviewed plans of tests/unit/golden anew
	@for profile in $$(ls inventories/models | sed 's/\.toml$$//'); do \
		gpus="NVIDIA A10:1"; grep -q '^\[hardware\]' inventories/models/$$profile.toml && gpus=; \
		$(BIN)/python -m operations.plan explain $$profile $${gpus:+--gpus "$$gpus"} \
			> tests/unit/golden/$$profile.txt; done
