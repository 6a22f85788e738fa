# Tandem. `make help` lists the targets; README.md says what they show.
SHELL := /bin/bash
.DEFAULT_GOAL := help
SEEDS ?= 200
TANDEM := target/debug/tandem

.PHONY: help run test bench soak sim fuzz lint e2e unit loom sanitize

help:   ## this list
	@grep -E '^[a-z0-9]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 16

run:    ## install what is missing, build, and run the demo: two regions, real calls, real audio
	@tools/setup/install.sh run
	cargo build --workspace --bin tandem
	$(TANDEM) demo

test:   ## all tests: unit, simulation, end to end with outside peers; prints the requirement rows
	@tools/setup/install.sh test
	cargo build --workspace --all-targets
	$(MAKE) --no-print-directory unit sim e2e
	@target/debug/xtask requirements

# Everything is built for the whole workspace, whatever runs: another selection of packages would
# unite features differently and compile the same crates twice.
unit:   ## unit, property and pair tests of every crate, loom models, and the repository's own rules
	cargo test --workspace --exclude e2e
	@$(MAKE) --no-print-directory loom
	@cargo build --quiet --workspace --bin xtask
	@target/debug/xtask tidy
	@target/debug/xtask layers

# Other flags for the compiler: a directory of its own, or everything would be built anew.
loom:   ## models of what threads meet in, under every interleaving (of up to three preemptions)
	RUSTFLAGS="--cfg tandem_loom" LOOM_MAX_PREEMPTIONS=3 \
	  cargo test --package edge-uring --lib --target-dir target/loom model::

sim:    ## whole regions on one virtual clock from SEEDS seeds (default 200)
	cargo build --workspace --bin sim
	target/debug/sim --seeds $(SEEDS)

# Tests that measure time have the machine to themselves; the others mostly wait for calls to pass.
e2e:    ## real daemons and outside peers (sipp, baresip, pjsua2, the stock SDKs)
	@mkdir -p target
	cargo build --workspace --bins --tests
	set -o pipefail; { \
	  cargo test --workspace --test together -- --test-threads 4 && \
	  cargo test --workspace --test alone -- --test-threads 1; } 2>&1 | tee target/e2e.log

bench:  ## the paired system harness and criterion kernels (minutes; wants a quiet machine)
	@tools/setup/install.sh bench
	cargo run --release --package benches -- run

soak:   ## an hour of churn against one edge
	@tools/setup/install.sh bench
	cargo run --release --package benches -- soak

fuzz:   ## fuzz targets, a minute each (needs cargo-fuzz)
	tests/fuzz/run.sh

# The sanitizer is part of the stable compiler, its flag is not.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
SANITIZED := edge-uring edge-xdp edge media-core
sanitize: ## the edge's unsafe code, its rings and media-core under AddressSanitizer (minutes)
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --target $(HOST) \
	  --target-dir target/asan $(SANITIZED:%=--package %) --lib --tests

lint:   ## formatting, clippy, tidy, layers
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	@cargo xtask tidy
	@cargo xtask layers
