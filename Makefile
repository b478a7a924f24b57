SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LINT := .tools/bin/golangci-lint
# How many packages or fuzz targets at once; the timeout is for one package.
TEST_P ?= 2
TEST_TIMEOUT ?= 20m
FUZZTIME ?= 60s

# The same for build and tests: everything is compiled once.
export CGO_ENABLED = 0
export GOFLAGS := $(GOFLAGS) -trimpath

.PHONY: help build demo test test-versions lint fuzz bench tools clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

build: ## bin/pgstow, a static binary
	go build -ldflags '-s -w -X main.version=$(VERSION)' -o bin/pgstow ./cmd/pgstow

demo: ## archive a sample database into a local S3 server and restore it
	@internal/testenv/tools.sh demo
	@[ -x bin/pgstow ] || echo 'building pgstow (minutes the first time, seconds later)'
	@export GOTMPDIR=$$(mktemp -d); trap 'rm -rf "$$GOTMPDIR"' EXIT; trap 'exit 130' INT TERM HUP; \
	  $(MAKE) --no-print-directory -s build; go build -o bin/demo ./internal/demo
	@exec bin/demo -page bin/demo-audit.html $(if $(KEEP),-keep)

test: tools lint build ## tools, lint, build and all tests but the two below
	go run ./internal/testenv/runtests -p $(TEST_P) -timeout $(TEST_TIMEOUT) ./...

test-versions: tools ## round trips with servers and clients of PostgreSQL 13, 15, 17 and 18
	@internal/testenv/tools.sh servers
	go run ./internal/testenv/runtests -list internal/testenv/versions.txt -tags versions -run '^TestVersions' \
	  -p $(TEST_P) -timeout $(TEST_TIMEOUT) ./internal/testenv ./archiver ./cmd/pgstow/e2e

lint: tools ## import rules, static checks and formatting
	$(LINT) run

fuzz: ## every fuzz target for FUZZTIME=60s
	go run ./internal/testenv/runfuzz -time $(FUZZTIME) -p $(TEST_P) ./...

bench: tools build ## pgstow beside pg_dump | mc, aws, rclone: N=5 rounds, SMALL=1, NEW_CLIENTS=dir of pg_dump 16+; AUDIT=10000 archives audited instead
	go build -tags nohashes -ldflags '-s -w' -o bin/pgstow-nohashes ./cmd/pgstow
	go run ./internal/bench -bare bin/pgstow-nohashes -n $(or $(N),5) $(if $(AUDIT),-audit $(AUDIT)) $(if $(SMALL),-small) $(if $(NEW_CLIENTS),-new-clients $(NEW_CLIENTS))

tools: ## install what tests, lint and demo need (cached by version)
	@internal/testenv/tools.sh test

clean: ## remove what was built here; the tools' cache stays
	rm -rf bin .tools .run
