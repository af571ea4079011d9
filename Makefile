# The few commands a person types. What they do is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo test test-zero-copy bench bench-wire why fuzz lint docs look deb

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## A network that misbehaves, made and watched here, down to the packets that prove it
	@scripts/demo.sh

test: ## Format, lints, all tests, dependency check; installs what they need
	@scripts/test.sh

test-zero-copy: ## `referee run --zero-copy require` on emulated NICs that can do it, in a guest under QEMU
	@scripts/zero-copy/run.sh

bench: ## What a packet costs on this machine; ARGS=--quick for a short look
	@scripts/bench.sh $(ARGS)

bench-wire: ## As root: `referee run` beside a bare AF_XDP loop; ARGS="--runs 1 --seconds 1" for a short look
	@scripts/bench-wire.sh $(ARGS)

why: ## One replay case of the tests, explained: make why CASE=name
	@CASE='$(CASE)' scripts/why.sh

fuzz: ## Any bytes at all, SECONDS=60 for each target, or for TARGET=name alone; finds go to fuzz/artifacts
	@SECONDS_EACH='$(SECONDS)' TARGET='$(TARGET)' scripts/fuzz.sh

deb: ## A Debian package: programs, man pages, completions, settings, unit, handbook
	@scripts/deb.sh

lint: ## Format and lints only
	@scripts/lint.sh

docs: ## Write docs/rules.md anew from the tables the rule language runs on
	@scripts/docs.sh

look: ## The page as a browser draws it: pictures into target/look, and checks; LOOK=checks without pictures
	@scripts/look.sh
