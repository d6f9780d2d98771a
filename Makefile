# The commands of the repository. Each installs what it needs and says so; all are quick when nothing is missing.
SHELL := /usr/bin/env bash
CARGO ?= cargo
# Every YAML file that is shipped as a configuration.
CONFIGS := proxy.yaml $(wildcard deploy/*.yaml deploy/*/proxy.yaml deploy/*/*/proxy.yaml deploy/two-nodes/node-*.yaml)
FUZZ_SECONDS ?= 60

.PHONY: run test check fuzz bench screenshots setup-run setup-test setup-bench

run: setup-run ## build, start the sample data sets and Tollgate, serve until Ctrl-C
	$(CARGO) build --release --bin tollgate --example dataset_service
	@exec scripts/run

test: setup-test ## all tests
	@rm -rf target/tmp/evidence
	$(CARGO) build --bin tollgate --example dataset_service --example embed
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --all-targets; else $(CARGO) test --all-targets; fi
	$(CARGO) test --doc
	@scripts/sealed target/tmp/evidence

check: setup-test ## what CI runs
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --no-deps --lib --document-private-items
	# With the examples, as the tests build it: other features would build all of it twice.
	$(CARGO) build --bin tollgate --example dataset_service --example embed
	REDIS_PASSWORD=check target/debug/tollgate check $(CONFIGS)
	@scripts/check-deploy
	@scripts/deny
	@scripts/fuzz --short
	promtool check config deploy/observability/prometheus.yaml
	promtool test rules deploy/observability/alerts.test.yaml
	$(MAKE) test

fuzz: setup-run ## every fuzz target for FUZZ_SECONDS each
	@scripts/fuzz $(FUZZ_SECONDS)

bench: setup-bench ## Tollgate and its peers side by side; benches/README.md says how to read it
	$(CARGO) bench --profile dist --bench compare

screenshots: setup-test ## pictures of each page of the console: all in target/screenshots, a few in docs/
	$(CARGO) build --bin tollgate --example dataset_service
	SCREENSHOTS=$(CURDIR)/target/screenshots $(CARGO) test --test it -- --exact console_story::look::no_page_has_a_serious_fault_for_people_with_disabilities_in_either_scheme
	mkdir -p docs/screenshots
	cd target/screenshots && cp tokens-light.png token-light.png usage-dark.png tokens-phone.png $(CURDIR)/docs/screenshots/

setup-run:
	@scripts/setup run

setup-test:
	@scripts/setup test

setup-bench:
	@scripts/setup bench
