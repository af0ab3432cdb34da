# Portcullis. `make` alone lists the commands; every one of them sets up what it needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench conformance cluster cluster-down bless fuzz clean

# Large builds are kept here between checkouts, keyed by version.
export PORTCULLIS_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/portcullis
# The seconds for which `make fuzz` runs each target.
FUZZ_SECONDS ?= 60

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-14s %s\n", $$1, $$2 }'

setup: ## install and build what the tests need (idempotent, cached outside the tree)
	scripts/setup all

demo: ## run jobs 1 and 2 on this machine in network namespaces; KUBE=1 on a real cluster, KEEP=1 leaves it running
	scripts/setup packet $(if $(KUBE),kubernetes images)
	cargo build --release --package cli --package gateway-daemon --package demo
	target/release/portcullis-demo --publish $(if $(KUBE),--kube) $(if $(KEEP),--keep)

test: ## run all tests; REQUIRE_ALL=1 turns skips into failures
	scripts/setup all
	cargo test --workspace

lint: ## formatting, clippy, dependency policy, house rules
	scripts/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	"$$(scripts/setup where | sed -n 's/^cargo-deny=//p')"/cargo-deny --log-level error check licenses bans sources
	cargo run --quiet --package xtask -- tidy
	cargo run --quiet --package xtask -- crds --check

bench: ## measure beside real peers; JOB=forward or JOB=publish
	scripts/setup packet kubernetes images $(if $(filter publish,$(JOB)),peers)
	cargo build --release --package cli --package gateway-daemon --package bench
	target/release/portcullis-bench $(or $(JOB),forward)

conformance: ## run the official Gateway API conformance suite against pods on a real cluster; TEST=NAME for one test
	scripts/setup packet kubernetes images gateway conformance
	cargo build --package cli
	cargo run --quiet --package testkit --bin conformance -- $(if $(TEST),--test $(TEST))

cluster: ## start a real two-node Kubernetes to play with; prints its KUBECONFIG
	scripts/setup packet kubernetes images
	cargo run --quiet --package testkit --bin cluster -- up

cluster-down: ## take it down; nothing is left behind
	cargo run --quiet --package testkit --bin cluster -- down

bless: ## rewrite golden files from what the code prints now; review with git diff
	UPDATE_EXPECT=1 cargo test --workspace

fuzz: ## run every fuzz target for FUZZ_SECONDS (needs nightly Rust and cargo-fuzz)
	for target in $$(cargo +nightly fuzz list); do cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); done

clean: ## remove what was built here; the cache outside the tree stays
	cargo clean
