# Everything is one word here: `make help`.
# On a fresh Debian 12, as root, each target first installs what it lacks (integration/install.sh).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX ?= /usr/local
DESTDIR ?=
# Another runtime for the tests and the benchmark: make test-containerd RUNTIME=/usr/sbin/runc
RUNTIME ?=
# As well another shim, another containerd: make test-containerd CONTAINERD=/opt/containerd/bin/containerd
SHIM ?=
CONTAINERD ?=
export RUNTIME SHIM CONTAINERD

suites := integration/suites.sh
has := integration/install.sh

.PHONY: demo
demo: ## build, run a container, show what the host and the container see side by side
	@$(has) build
	@cargo build --quiet --release -p tare
	@cargo run --quiet -p integration --bin demo -- "$$($(suites) runtime)"

.PHONY: build
build: ## the release binaries, static: target/<triple>/release/{tare,containerd-shim-tare-v2}
	@$(has) build
	@cargo build --release -p tare -p containerd-shim-tare-v2

.PHONY: check
check: ## formatting, lints, layers, dependencies, scripts, and what is linked into the binary
	@$(has) check
	@$(suites) check

.PHONY: test-quick
test-quick: ## unit tests, golden plans, layers, the life cycle on the release build: 3 minutes at most
	@$(has) build
	@$(suites) quick

.PHONY: test
test: ## everything: check, unit, specification, the allocation guard, v2, engines; ends with one summary line
	@$(has) test
	@$(suites) test

.PHONY: test-v2
test-v2: ## on control groups v2 alone, in virtual machines: without systemd, with it, as an ordinary user
	@$(has) vm
	@$(suites) v2

.PHONY: test-integration
test-integration: ## containerd, Docker, Podman, a Debian system, leaks (RUNTIME=PATH for another runtime)
	@$(has) engines
	@$(suites) integration

.PHONY: test-containerd
test-containerd: ## of those, containerd and its CRI alone (CONTAINERD=PATH for another one, SHIM=PATH)
	@$(has) engines
	@$(suites) containerd

.PHONY: test-docker-shim
test-docker-shim: ## all of Docker's commands through the shim, of which `test` plays a third
	@$(has) engines
	@$(suites) docker-shim

.PHONY: test-engines-new
test-engines-new: ## containerd and Docker of a newer Debian (SUITE=trixie), in a root made once under .cache/
	@$(has) engines
	@$(suites) engines-new

.PHONY: test-peers
test-peers: ## the specification's tests on runc and crun, here and on v2, and the attacks on youki: they must be true of them too
	@$(has) peers
	@$(suites) peers

.PHONY: fuzz
fuzz: ## every reader against what nobody would write, each for FUZZ_SECONDS (60); FUZZ_KEEP=1 adds to the corpora
	@$(has) build
	@$(suites) fuzz

.PHONY: sanitize
sanitize: ## the unit tests under Miri, as far as it goes, and with AddressSanitizer; needs a nightly compiler
	@$(has) build
	@$(suites) sanitize

.PHONY: sweep
sweep: ## every fault for every system call of the verbs, where `test` has one for some: an hour
	@$(has) build
	@$(suites) sweep

.PHONY: soak
soak: ## a thousand containers, on v1 here and on v2 in a virtual machine: nothing of them is left; the attacks' races for longer
	@$(has) engines
	@$(has) vm
	@$(suites) soak

.PHONY: bench
bench: ## each operation against runc, crun and the bare syscalls, interleaved (ROUNDS=100); memory limits
	@$(has) bench
	@$(suites) bench

.PHONY: install
install: build ## into $(DESTDIR)$(PREFIX)/sbin, and the shim into bin beside it
	install -D -m 755 "$$($(suites) built)" "$(DESTDIR)$(PREFIX)/sbin/tare"
	install -D -m 755 "$$($(suites) shim)" "$(DESTDIR)$(PREFIX)/bin/containerd-shim-tare-v2"

.PHONY: help
help: ## these lines
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 26
