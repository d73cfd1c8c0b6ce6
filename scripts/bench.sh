#!/bin/sh
# Compares bin/csfproxy with a direct connection and PgBouncer in one run and puts the tables into docs/performance.md and
# the chart into docs/performance.svg.
#   BENCH_ROUNDS (3), BENCH_SECONDS (5), BENCH_SESSIONS ("1000,5000,9000"), BENCH_COPY in MiB (512)
# Further arguments go to the program (go run ./internal/bench -h), -binary NAME=FILE above all: several builds in one run.
set -eu
cd "$(dirname "$0")/.."
ulimit -n 100000 2>/dev/null || ulimit -n "$(ulimit -Hn)" # each waiting session takes two here and two in the proxy
go build -o bin/bench ./internal/bench
set -- bin/bench -rounds "${BENCH_ROUNDS:-3}" -seconds "${BENCH_SECONDS:-5}" -sessions "${BENCH_SESSIONS:-1000,5000,9000}" -copy "${BENCH_COPY:-512}" -layers \
	-out docs/performance.md -chart docs/performance.svg "$@"
# As root on Linux the run has a network of its own: loopback only, and the congestion control that most machines have.
if [ "$(id -u)" = 0 ] && unshare --net true 2>/dev/null; then
	exec unshare --net sh -c 'ip link set lo up; sysctl -qw net.ipv4.tcp_congestion_control=cubic net.ipv4.ip_local_port_range="15000 64999" 2>/dev/null; exec "$@"' sh "$@"
fi
exec "$@"
