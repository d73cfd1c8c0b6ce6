#!/bin/sh
# Compares bin/csfproxy with a direct connection and PgBouncer in one run and puts the tables into docs/performance.md.
#   BENCH_ROUNDS (3), BENCH_SECONDS (5), BENCH_SESSIONS (1000), BENCH_COPY in MiB (512)
# Further arguments go to the program (go run ./internal/bench -h), -binary NAME=FILE above all: several builds in one run.
set -eu
cd "$(dirname "$0")/.."
go build -o bin/bench ./internal/bench
exec bin/bench -rounds "${BENCH_ROUNDS:-3}" -seconds "${BENCH_SECONDS:-5}" -sessions "${BENCH_SESSIONS:-1000}" -copy "${BENCH_COPY:-512}" \
	-out docs/performance.md "$@"
