#!/bin/sh
# SPDX-License-Identifier: MIT
# Benchmarks, as ratios within one run wherever there is something to compare with.
#
#   sh tests/bench/run.sh [--build FOLDER] [--json FILE] [NAME]...
#
# NAME is restart, keeper, storm, parks or http; all, if none is named. Prints a table; with --json, writes
# the same figures to FILE. Builds, optimized, in build/bench, or in FOLDER. A quiet machine gives the
# better figures; those marked "x" are ratios, which hold on a busy one, too. The exit status says
# whether all of it ran, not whether the aims are met.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/lib.sh"
json='' names=''
b=$top/build/bench
while [ $# -gt 0 ]; do
	case $1 in
	--build)
		b=${2:?--build needs a folder}
		shift
		;;
	--json)
		json=${2:?--json needs a file}
		shift
		;;
	restart | keeper | storm | parks | http) names="$names $1" ;;
	*)
		echo "run.sh: there is no benchmark \"$1\"" >&2
		exit 2
		;;
	esac
	shift
done
names=${names:-restart keeper storm parks http}

# shellcheck disable=SC2086
need $BUILD_PACKAGES && build "$b" --buildtype=release -Dtests=disabled || exit 1
READYD=$(cd "$b" && pwd)/daemon/readyd
READYD_HTTP=$(cd "$b" && pwd)/client-lib/examples/http
TMPDIR=$(mktemp -d) || exit 1
export READYD READYD_HTTP TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 1' INT TERM

status=0
for name in $names; do
	if ! "$b/tests/bench/bench-$name" >"$TMPDIR/one"; then
		echo "run.sh: $name failed" >&2
		status=1
	fi
	sed "s/^/$name	/" "$TMPDIR/one" >>"$TMPDIR/all"
done

awk -F '\t' '
	{
		cell[NR, 1] = $1; cell[NR, 2] = $2; cell[NR, 3] = $3; cell[NR, 4] = $4
		cell[NR, 5] = $5 == "" ? "" : "<= " $5; cell[NR, 6] = $6
		for (i = 1; i <= 6; i++)
			if (length(cell[NR, i]) > width[i])
				width[i] = length(cell[NR, i])
	}
	END {
		for (n = 1; n <= NR; n++)
			printf "%-" width[1] "s  %-" width[2] "s  %" width[3] "s %-" width[4] "s  %-" \
				width[5] "s  %s\n", cell[n, 1], cell[n, 2], cell[n, 3], cell[n, 4],
				cell[n, 5], cell[n, 6]
	}' "$TMPDIR/all" | sed 's/ *$//'
[ -z "$json" ] || awk -F '\t' '
	BEGIN { print "[" }
	{
		printf "%s  {\"benchmark\": \"%s\", \"name\": \"%s\", \"value\": %s, \"unit\": \"%s\"",
			(NR > 1 ? ",\n" : ""), $1, $2, ($3 ~ /nan/ ? "null" : $3), $4
		if ($5 != "")
			printf ", \"aim\": %s, \"met\": %s", $5, ($6 == "met" ? "true" : "false")
		printf "}"
	}
	END { print "\n]" }' "$TMPDIR/all" >"$json" || status=1
exit $status
