# Every step of the project. CI runs the same ones: see .ci/run.

# bash also where sh would do, so that the PATH below counts for every command.
SHELL := /bin/bash
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
OUTPUT := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo test test-rootless suites test-windows test-sanitizers test-kernels model budgets fuzz bench bench-policy instructions guarantee lint build install uninstall
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\): .*## /make \1\t/p' Makefile | expand -t 22

demo: ## run curl and Python through chains of services on this machine (without root too)
	@scripts/setup demo
	cargo build --release -p waylay-cli -p waylay-examples
	@scripts/demo $(OUTPUT)/release

test: ## run every test; those that load eBPF programs need root
	@scripts/setup test
	@scripts/test

test-rootless: ## run the tests of the main job by the engine that takes no privilege (needs root to make the ground)
	@scripts/setup test
	@scripts/test-rootless

suites: ## run test suites of others without waylay, through one service and through three, and compare (needs root)
	@scripts/setup suites
	cargo build --release -p waylay-cli
	@scripts/suites/run

test-windows: ## build the library for Windows and run its tests under Wine
	@scripts/setup windows
	@scripts/test-windows

test-sanitizers: ## try the control codes under valgrind and with sanitizers (needs root)
	@scripts/setup sanitizers
	@scripts/test-sanitizers

test-kernels: ## boot Debian's own kernel under qemu and run the engine's tests there (KERNEL=linux-image-6.12-amd64)
	@scripts/setup kernels
	@scripts/test-kernels $(KERNEL)

model: ## try everything that up to five services can do to a connection (a minute)
	@scripts/setup build
	cargo test --release -p waylay-model --test chains -- --ignored --nocapture --test-threads 1

budgets: ## print what the kernel programs cost, and what they may (needs root)
	@scripts/setup build
	@cargo test --quiet -p waylay-netlab --test budgets -- --nocapture every_program

fuzz: ## fuzz each decoder of bytes from outside for a minute (TARGET=name SECONDS=n; needs a nightly toolchain)
	@scripts/setup fuzz
	@scripts/fuzz $(or $(SECONDS),60) $(TARGET)

bench: ## measure what waylay costs, against what it is built on and against others (needs root)
	@scripts/setup bench
	cargo build --release -p waylay-cli
	cargo build --release -p waylay-benches --bin bench-seat
	cargo bench -p waylay-benches --bench connect --bench options --bench control_codes --bench relay --bench udp --bench seccomp

bench-policy: ## measure what up to 100,000 filters cost, beside nftables (needs root)
	@scripts/setup bench
	cargo build --release -p waylay-benches --bin bench-seat
	cargo bench -p waylay-benches --bench policy

guarantee: ## run the tests that guard one promise of GUARANTEES.md: make guarantee N=7
	@scripts/setup test
	@scripts/guarantee $(N)

instructions: ## count what watched parts take, by callgrind, against their budget
	@scripts/setup instructions
	cargo build --release -p waylay-benches --bin bench-seat
	cargo bench -p waylay-benches --bench instructions

lint: ## check format, clippy, dependencies and documentation
	@scripts/setup lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo deny --workspace check bans licenses sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

build: ## build the waylay command, and the library for C and C++, for use
	@scripts/setup build
	cargo build --release -p waylay-cli -p waylay-ws2

install: ## install what make build has built, below PREFIX (/usr/local)
	@scripts/install

uninstall: ## remove what make install has installed
	@scripts/install --remove
