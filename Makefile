# The commands of the repository. Each installs what it needs and says so; all are quick when nothing is missing.
SHELL := /usr/bin/env bash
CARGO ?= cargo
# Every YAML file that is shipped as a configuration.
CONFIGS := proxy.yaml $(wildcard deploy/*.yaml)
FUZZ_SECONDS ?= 60

.PHONY: run test check fuzz bench setup-run setup-test setup-bench

run: setup-run ## build, start the sample data sets and Tollgate, serve until Ctrl-C
	$(CARGO) build --release --bin tollgate --example dataset_service
	@exec scripts/run

test: setup-test ## all tests
	@rm -rf target/tmp/evidence
	$(CARGO) build --bin tollgate --example dataset_service
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --all-targets; else $(CARGO) test --all-targets; fi
	$(CARGO) test --doc
	@scripts/sealed target/tmp/evidence

check: setup-test ## what CI runs
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --lib --document-private-items
	$(CARGO) build --bin tollgate
	target/debug/tollgate check $(CONFIGS)
	$(MAKE) test

fuzz: setup-run ## every fuzz target for FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

bench: setup-bench ## Tollgate and its peers side by side; benches/README.md says how to read it
	$(CARGO) bench --profile dist --bench compare

setup-run:
	@scripts/setup run

setup-test:
	@scripts/setup test

setup-bench:
	@scripts/setup bench
