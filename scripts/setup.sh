#!/bin/sh
# Installs what a command of the Makefile needs and the machine lacks: on Debian and its relatives with apt,
# on macOS with Homebrew. Run as root or as a user who may use sudo. With everything in place it does nothing.
#   setup.sh run     PostgreSQL's server programs and a C compiler
#   setup.sh test    the same, PostgreSQL's client programs and a Chromium
set -eu

pg_bin() {
	for d in "${CSFPROXY_PG_BIN:-/nonexistent}" $(printf '%s' "$PATH" | tr ':' ' ') /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin; do
		if [ -x "$d/initdb" ] && [ -x "$d/postgres" ]; then echo "$d"; return 0; fi
	done
	return 1
}

have() { command -v "$1" >/dev/null 2>&1; }

browser() {
	for b in chromium chromium-browser google-chrome google-chrome-stable; do have "$b" && return 0; done
	[ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] || [ -x "/Applications/Chromium.app/Contents/MacOS/Chromium" ]
}

need=""
add() { need="$need $1"; }

have go || { echo "setup: Go 1.26 or newer is needed: https://go.dev/dl" >&2; exit 1; }

if [ "$(uname)" = Darwin ]; then
	pg_bin >/dev/null || add postgresql@17
	if [ "$1" = test ]; then browser || add chromium; fi
	[ -n "$need" ] || exit 0
	have brew || { echo "setup: Homebrew is needed to install$need: https://brew.sh" >&2; exit 1; }
	for p in $need; do
		case "$p" in chromium) brew install --cask chromium ;; *) brew install "$p" ;; esac
	done
	exit 0
fi

pg_bin >/dev/null || add postgresql
have cc || have gcc || { add gcc; add libc6-dev; }
if [ "$1" = test ]; then
	have psql || add postgresql-client
	have pgbench || { bin=$(pg_bin || true); [ -n "$bin" ] && [ -x "$bin/pgbench" ] || add postgresql-contrib; }
	browser || add chromium
fi
[ -n "$need" ] || exit 0
have apt-get || { echo "setup: install with your system's package manager:$need" >&2; exit 1; }

sudo=""
[ "$(id -u)" = 0 ] || { have sudo || { echo "setup: run as root or install sudo, to install:$need" >&2; exit 1; }; sudo=sudo; }
echo "setup: installing$need" >&2
# Debian's package would start a server of its own on port 5432, which nobody asked for here.
fresh=""
if [ ! -e /etc/postgresql-common ]; then
	$sudo mkdir -p /etc/postgresql-common/createcluster.d
	echo "create_main_cluster = false" | $sudo tee /etc/postgresql-common/createcluster.d/csfproxy-setup.conf >/dev/null
	fresh=1
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q >&2
# shellcheck disable=SC2086
$sudo apt-get install -q -y --no-install-recommends $need >&2
[ -z "$fresh" ] || $sudo rm -f /etc/postgresql-common/createcluster.d/csfproxy-setup.conf
pg_bin >/dev/null || { echo "setup: PostgreSQL's server programs are still missing" >&2; exit 1; }
