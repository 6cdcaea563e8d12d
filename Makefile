# Everything a developer types. `make demo` needs git, make and Python 3.11 or newer; the rest makes its own environment in .venv.
# PYTHON=/path/to/python chooses another interpreter than the newest python3.11+ on PATH.

PYTHON ?= $(shell sh tools/find-python.sh)
VENV := .venv
# Beside ruff's own set flake8-async finds yields in nurseries, awaits in finally, swallowed Cancelled. Left out: 106 (names imported for types),
# 109 (our timeouts are settings), 111 (signals are obeyed while what they stop is closing), 114 and 128 (they do not see task_status passed on), 120, 124, 127 (httpx is given), 9xx (they do not know that a
# channel's receive or a call of ours is a checkpoint).
ASYNC_IGNORED := ASYNC106,ASYNC109,ASYNC111,ASYNC114,ASYNC120,ASYNC124,ASYNC127,ASYNC128,ASYNC9
BIN := $(VENV)/bin
# What looks at the release from outside (SBOM, audit) has an environment of its own.
AUDIT := .venv-audit

.PHONY: demo dev test lint types check-style unit load failover soak clients bench bench-micro bench-scale profile fuzz eval calibrate lock wheel changelog sbom audit clean help site

help:
	@echo "make demo    see evenflow repair a misbehaving upstream, in a minute"
	@echo "make dev     run it with a simulated upstream until Ctrl-C"
	@echo "make test    lint, types, unit, actor and end-to-end tests"
	@echo "make load    1,000 streams at once, and how fast a client's leaving reaches the upstream"
	@echo "make failover  sixteen faults of an upstream at their real speed, against docs/examples/failover.toml (2 min)"
	@echo "make soak    mixed traffic with faults; at the end everything is back where it was (ARGS=\"--minutes 60\")"
	@echo "make clients  nine real clients (SDKs, CLIs, agents) installed and run, the simulator behind evenflow (ARGS=\"--only llm\")"
	@echo "make bench   what a chunk and a request cost, beside nginx and a bare relay (ARGS=\"--scenario paced-100 --peers naive\")"
	@echo "make bench-micro    parser, detector, breaker, channel: microseconds per call"
	@echo "make bench-scale    cost of a request and memory of a stream, from 1 to 5,000 open"
	@echo "make profile        where the time goes: table and flame graph (ARGS=\"--scenario short --svg flame.svg\")"
	@echo "make fuzz    the parser, the stream machine and both listeners under arbitrary input (ARGS=\"--minutes 60\")"
	@echo "make eval    how often each shape of stutter is repaired, and that nothing else is touched"
	@echo "make calibrate  the odds behind each weight of the detector, measured anew"
	@echo "make site    the documentation as a site, in site/"
	@echo "make lock    renew the hash-locked requirements"
	@echo "make wheel   build dist/*.whl, what pipx and pip install"
	@echo "make changelog  show what is new and not released; with VERSION=0.2.0 write it into CHANGELOG.md"
	@echo "make sbom    what is inside, as CycloneDX: dist/evenflow.cdx.json"
	@echo "make audit   ask the advisory database about every locked package (needs the network)"

demo: $(VENV)/run.stamp
	@$(BIN)/evenflow demo

dev: $(VENV)/run.stamp
	@$(BIN)/evenflow dev

test: lint types unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/flake8 --select ASYNC --ignore $(ASYNC_IGNORED) actors server bench

types: $(VENV)/dev.stamp
	$(BIN)/mypy

unit: $(VENV)/dev.stamp
	$(BIN)/pytest -q $(ARGS)

# Not `load` first: as the first word of a line it is a directive of make.
failover soak clients load: $(VENV)/run.stamp
	$(BIN)/python -m bench.$@ $(ARGS)

bench: $(VENV)/run.stamp
	$(BIN)/python -m bench.compare $(ARGS)

bench-micro bench-scale: bench-%: $(VENV)/run.stamp
	$(BIN)/python -m bench.$* $(ARGS)

profile: $(VENV)/run.stamp
	$(BIN)/python -m bench.flame $(ARGS)

fuzz calibrate: $(VENV)/dev.stamp
	$(BIN)/python -m bench.$@ $(ARGS)

eval: $(VENV)/dev.stamp
	$(BIN)/python -m bench.stutter_eval $(ARGS)

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --group dev -o requirements-dev.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group audit -o requirements-audit.lock

wheel: $(VENV)/dev.stamp
	$(BIN)/python -m hatchling build --target wheel

site: $(VENV)/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

changelog: $(VENV)/dev.stamp
	@$(BIN)/towncrier build $(if $(VERSION),--yes --version $(VERSION),--draft --version "next release")

sbom: $(AUDIT)/stamp
	@mkdir -p dist
	@$(AUDIT)/bin/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file dist/evenflow.cdx.json
	@echo "wrote dist/evenflow.cdx.json"

audit: $(AUDIT)/stamp
	@sh tools/audit.sh $(AUDIT)/bin/pip-audit requirements.lock

clean:
	rm -rf $(VENV) $(AUDIT) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@sh tools/make-venv.sh "$(PYTHON)" $(VENV)

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what evenflow needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@sh tools/install-checkout.sh $(VENV)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/run.stamp
	@echo "installing what the tests need into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(AUDIT)/stamp: requirements-audit.lock
	@sh tools/make-venv.sh "$(PYTHON)" $(AUDIT)
	@echo "installing what looks at the release into $(AUDIT) ..."
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-audit.lock
	@touch $@
