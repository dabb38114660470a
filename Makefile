# The project's commands. Everything runs in .venv, which is made from the hashed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAB := tests/lab/lab
export PYINFRA_PROGRESS ?= off
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec

.PHONY: help
help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.PHONY: demo
demo: venv lab-packages ## boot a lab host, deploy to it, ask the model a question
	$(BIN)/python -m tests.lab.demo

.PHONY: test
test: venv test-packages ## the short selection: all checks, and each kind of lab test: about 12 minutes
	@$(BIN)/python -m tests.run_all

.PHONY: test-all
test-all: venv test-packages ## everything: every profile, mutation and fault; run it before you call a change done; RESUME=1 goes on where a run ended
	@$(BIN)/python -m tests.run_all --all

.PHONY: test-faults
test-faults: venv lab-packages ## every fault of docs/reliability.md, and the table of their results: about an hour
	FAULT_ROUNDS=$${FAULT_ROUNDS:-100} $(BIN)/pytest -q tests/lab/faults

.PHONY: test-vm
test-vm: venv vm-packages ## stages of a deploy on a whole machine: its own kernel, SELinux enforcing, LVM, a reboot: about 12 minutes
	$(BIN)/pytest -q tests/lab/vm

.PHONY: check
check: venv check-packages ## format, lint, types, quick tests: half a minute
	@$(BIN)/python -m tests.check

.PHONY: format
format: venv ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: verify
verify: venv ## verify that the lab's hosts are what the inventory says
	$(BIN)/pytest tests/verify --inventory inventories/lab.py

.PHONY: lab-up
lab-up: venv lab-packages ## boot one lab host (N=3 for three)
	$(LAB) up $(or $(N),1)

.PHONY: lab-down
lab-down: ## remove the lab: hosts, network, mounts, processes
	$(LAB) down

.PHONY: bench
bench: venv ## compare the time of a run without changes with an empty pyinfra run
	$(BIN)/python bench/noop.py

.PHONY: bundle
bundle: venv ## everything the hosts fetch, for a site without a network: OUTPUT=DIR URL=http://ADDRESS:PORT [INVENTORY=…]
	@[ -n "$(OUTPUT)" ] && [ -n "$(URL)" ] || { \
		echo "make bundle OUTPUT=DIR URL=http://ADDRESS:PORT, as the site's hosts will reach it (docs/supply-chain.md)"; exit 2; }
	$(BIN)/python -m operations.bundle make $(or $(INVENTORY),inventories/oci.py) --output "$(OUTPUT)" --url "$(URL)"

.PHONY: lock
lock: venv ## resolve requirements.lock again from pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
		--no-emit-find-links --no-header --extra dev --extra lab --output-file requirements.lock pyproject.toml

.PHONY: venv
venv: $(VENV)/.installed

# Compile byte code on all cores, except for unused services of OCI's SDK, which are four fifths of all files. pyinfra writes no
# byte code, so a file that is not compiled here is compiled in every run.
UNUSED := /oci/(?!auth|bastion|core|identity|secrets|_vendor|[a-z_0-9]*\.py)

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: PYTHON=$(PYTHON): expected Python 3.11 to 3.13; name one: make PYTHON=python3.12 venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "installing python3-venv, which $(PYTHON) lacks"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv || { \
			echo "make: apt-get failed: install what gives $(PYTHON) the modules ensurepip and venv"; exit 1; }; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --require-hashes --requirement requirements.lock
	@$(BIN)/python -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib >/dev/null || true
	@touch $@

# Debian packages of the lab and of the checks; `tests/lab/lab packages` lists them.
.PHONY: lab-packages check-packages test-packages vm-packages
lab-packages: venv
	@$(LAB) packages --install
test-packages: venv
	@$(LAB) packages --test --install
check-packages: venv
	@$(LAB) packages --check --install
vm-packages: venv
	@$(LAB) packages --vm --install

.PHONY: reference
reference: venv ## write the generated pages: docs/reference, docs/modules.svg, docs/requirements.md
	$(BIN)/python -m tests.reference_pages
	$(BIN)/python -m tests.module_map
	$(BIN)/python -m tests.requirement_table

# The site has a lock and an environment of its own: nothing of a deploy or of a check needs it.
DOCS_VENV := build/docs-venv

.PHONY: docs
docs: $(DOCS_VENV)/.installed ## build the site from docs/ into build/site; fail on a warning
	$(DOCS_VENV)/bin/zensical build --strict --config-file mkdocs.yml

$(DOCS_VENV)/.installed: requirements-docs.lock
	@$(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-docs.lock
	@touch $@

.PHONY: lock-docs
lock-docs: ## resolve requirements-docs.lock from the extra docs of pyproject.toml again
	@$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/pip install --quiet --disable-pip-version-check pip-tools
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		| build/lock-venv/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate --output-file requirements-docs.lock -

.PHONY: golden
golden: venv ## write the reviewed plans, profiles and pages of tests/unit again
	@for profile in $$(ls inventories/models | sed 's/\.toml$$//'); do \
		gpus="NVIDIA A10:1"; grep -q '^\[hardware\]' inventories/models/$$profile.toml && gpus=; \
		$(BIN)/python -m operations.plan explain $$profile $${gpus:+--gpus "$$gpus"} \
			> tests/unit/golden/$$profile.txt; done
	@$(BIN)/python -m tests.unit.test_proposal
	@$(BIN)/python -m tests.unit.test_report_page
