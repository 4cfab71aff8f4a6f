# Everything is in scripts/; `make help` lists the targets.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help setup runsc build demo up down test check bench soak compat generate clean

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## install what is missing on this machine; the other targets do it by themselves
	@scripts/setup

runsc: ## build the pinned gVisor into the cache and print its path
	@tools/runsc/build.sh

build: ## build bin/innerdock
	@scripts/build

demo: ## run the first example, from nothing to what Docker printed
	@scripts/demo

up: ## start a server to play with
	@scripts/up

down: ## end its sandboxes and stop it
	@scripts/down

test: ## run all tests, real sandboxes included
	@scripts/test

check: ## formatting, vet, lint, generated files, types, data races
	@scripts/check

bench: ## measure starts, processes and Docker against Docker on the host
	@scripts/bench

soak: ## have a server live through ten bad minutes; scripts/soak -for 8h for a bad night
	@scripts/soak

compat: ## run the checks of compatibility with Docker, and write docs/compatibility.md
	@scripts/compat

generate: ## make generated files again
	go generate .

clean: ## remove what was built in the checkout; the cache stays
	rm -rf bin pkg/worker/agentbin/innerdock-*
