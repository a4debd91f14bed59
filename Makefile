# crshim: the checkpoint and restart system calls of 2009 on an unmodified kernel.
# Every target has its one-line help behind "##"; `make` prints them.

PREFIX    ?= /usr/local
DESTDIR   ?=
OUT       ?= .cache/originals
FUZZTIME  ?= 30s
TESTFLAGS ?=

VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
STATICCHECK := .cache/bin/staticcheck-v0.8.2
UNIT        := ./core/... ./seccomp/... ./shim/... ./syscalls/... ./tracer/... ./tests/cmd/...
SAMPLES     := $(patsubst samples/%.c,bin/samples/%,$(wildcard samples/*.c))
USES_BIN    := $(patsubst samples/%.c,bin/samples/%,$(wildcard samples/uses/*.c))
HEADERS     := $(shell find shim/include -name '*.h' 2>/dev/null)
REPORT      := .cache/bin/report

# What the readme of 2009 says checkpoints are good for.
USES := failure-recovery response-time utilisation fault-resilience load-balancing maintenance time-travel

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests build demo uses test race bench fuzz lint generate generate-check man samples samples-original install clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the build needs and this machine lacks
	@.ci/setup

setup-tests: ## The same for the tests (musl-gcc, g++, 32-bit libc, programs to save)
	@.ci/setup tests

build: setup ## Build bin/crshim
	go build -trimpath -ldflags '-X github.com/crshim/crshim/shim.version=$(VERSION)' -o bin/crshim ./shim/cmd/crshim

demo: build samples ## Set up, build, then checkpoint, kill and restart a counting program
	@samples/demo.sh bin/crshim bin/samples

uses: build $(USES_BIN) ## Run the seven uses of samples/uses, each of which judges itself
	@for use in $(USES); do \
	  printf '\n== %s\n' "$$use"; \
	  samples/uses/$$use.sh bin/crshim bin/samples/uses || [ $$? = 77 ] || exit 1; \
	done

test: setup-tests build samples $(REPORT) ## Run all tests; the last line is the count
	@$(REPORT) -timeout 18m $(TESTFLAGS) ./...

race: setup $(REPORT) ## Run the tests beside the code under the race detector
	@$(REPORT) -race -timeout 10m $(TESTFLAGS) $(UNIT)

bench: build samples ## Measure; every figure is a ratio to something run beside it
	@go run ./tests/bench

fuzz: setup ## Run every fuzz target for FUZZTIME (30s)
	@go list ./... | while read -r package; do \
	  go test -list '^Fuzz' "$$package" | sed -n '/^Fuzz/p' | while read -r target; do \
	    echo "fuzz $$package $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
	  done || exit 1; \
	done

lint: setup $(STATICCHECK) ## gofmt, go vet, staticcheck, shell syntax, generated files fresh
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'not formatted:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@for script in .ci/run .ci/setup $$(git ls-files '*.sh'); do bash -n "$$script" || exit 1; done
	go vet ./...
	$(STATICCHECK) ./...
	@$(MAKE) --no-print-directory generate-check

$(REPORT): $(wildcard tests/cmd/report/*.go)
	@go build -o $@ ./tests/cmd/report

$(STATICCHECK):
	@mkdir -p $(@D)
	GOBIN=$(abspath $(@D)) go install honnef.co/go/tools/cmd/staticcheck@$(patsubst $(@D)/staticcheck-%,%,$@)
	@mv $(@D)/staticcheck $@

generate: build ## Write the tables in docs/ that come from the code
	@bin/crshim docs docs

generate-check: build ## Fail if a generated table is out of date
	@bin/crshim docs --check docs

man: build ## Write the man pages to bin/man
	@bin/crshim man bin/man

$(USES_BIN): samples/uses/uses.h
samples: $(SAMPLES) ## Build the programs in samples/ into bin/samples
bin/samples/%: samples/%.c $(HEADERS) | build
	@mkdir -p $(@D)
	bin/crshim cc -O2 -Wall -o $@ $< -lm

samples-original: build ## Extract the four programs of 2009 from a saved copy of the mail (SEED=FILE) and build them (OUT=DIR)
	@samples/originals.sh '$(SEED)' '$(OUT)' bin/crshim

install: build man ## Install under PREFIX (/usr/local); DESTDIR is honoured
	install -D -m 755 bin/crshim $(DESTDIR)$(PREFIX)/bin/crshim
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 bin/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/crshim completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/crshim

clean: ## Remove what was built
	rm -rf bin .cache
