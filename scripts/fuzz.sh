#!/bin/sh
# Runs every fuzz target of the module, one after the other, and says at the end how often each was executed.
#   fuzz.sh [TIME [WORKERS [TARGET…]]]      TIME as in go test -fuzztime, default 1m; WORKERS default 1
# An input that is new is made smaller in ten tries at most: by default that takes a minute of each. It goes on behind a target that fails and ends with status 1; go test has then written the input to testdata/fuzz.
set -eu
time=${1:-1m}
workers=${2:-1}
[ $# -lt 2 ] || shift
[ $# -lt 1 ] || shift
cd "$(dirname "$0")/.."
out=$(mktemp)
table=$(mktemp)
trap 'rm -f "$out" "$table"' EXIT
status=0
for dir in $(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do
	for target in $(grep -h '^func Fuzz' "$dir"/*_test.go | sed 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/'); do
		[ $# -eq 0 ] || case " $* " in *" $target "*) ;; *) continue ;; esac
		echo "== $dir $target"
		verdict=ok
		go test "$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel "$workers" >"$out" 2>&1 || { verdict=FAILED status=1; }
		grep -v '^fuzz: elapsed' "$out" || true
		execs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' "$out" | tail -1)
		printf '%12s executions  %s %s  %s\n' "${execs:-0}" "$dir" "$target" "$verdict" >>"$table"
	done
done
cat "$table"
exit $status
