#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds readyd and shows it at work: a private daemon, an echo server written against libreadyd,
# 1,000 TCP connections from a load program, and readyctl looking on.
#
#   sh tests/quickstart.sh [--quick]
#
# Installs what it needs. The last line is
#   N connections, N messages, N entries, N entries a batch, p50 N us, p99 N us
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
. "$top/tests/lib.sh"

connections=1000 messages=200000
[ "${1-}" != --quick ] || messages=40000

# shellcheck disable=SC2086
need $BUILD_PACKAGES
build "$top/build"

work=$(mktemp -d)
daemon="" echo="" load=""
finish() {
	status=$?
	exec 3>&- || :
	for pid in $load $echo $daemon; do
		kill "$pid" 2>/dev/null || :
		wait "$pid" 2>/dev/null || :
	done
	rm -rf "$work"
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for FILE PATTERN PID: until a line of a growing file matches.
wait_for() {
	tries=0
	until grep -q "$2" "$1" 2>/dev/null; do
		tries=$((tries + 1))
		if [ $tries = 600 ] || ! kill -0 "$3" 2>/dev/null; then
			echo "quickstart: \"$2\" never came:" >&2
			cat "$work"/*.log >&2
			exit 1
		fi
		sleep 0.05
	done
}

readyctl=$top/build/client-lib/ctl/readyctl

# show ARGUMENT...: readyctl, as a person would type it.
show() {
	printf '\n$ readyctl %s\n' "$*"
	"$readyctl" "$@"
}

echo "Starting a private readyd, an echo server on it, and $connections connections to that."
"$top/build/daemon/readyd" --private --ready-fd 3 3>"$work/ready" 2>"$work/readyd.log" &
daemon=$!
wait_for "$work/ready" '^READYD_SOCKET=' $daemon
READYD_SOCKET=$(sed -n 's/^READYD_SOCKET=//p' "$work/ready")
export READYD_SOCKET

"$top/build/client-lib/examples/echo" >"$work/echo.log" 2>&1 &
echo=$!
wait_for "$work/echo.log" '^port ' $echo
port=$(sed -n 's/^port //p' "$work/echo.log")

# load holds in the middle until its stdin ends, so that there is something to look at
mkfifo "$work/go"
"$top/build/tests/load" "$port" $connections $messages --hold <"$work/go" >"$work/load.log" 2>&1 &
load=$!
exec 3>"$work/go"
wait_for "$work/load.log" '^holding' $load

show status
printf '\n$ readyctl list | head\n'
"$readyctl" list >"$work/list"
head -n 11 "$work/list"
echo "... $(grep -c '/' "$work/list") watches in all"
show show "$(sed -n '3s/^ *\([^ ]*\).*/\1/p' "$work/list")"

exec 3>&-
wait $load || { cat "$work/load.log" >&2; exit 1; }
load=
"$readyctl" --json status >"$work/status"
field() {
	sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/status"
}
result=$(tail -n 1 "$work/load.log")
echo
awk -v result="$result" -v entries="$(field entries)" -v batches="$(field messages)" 'BEGIN {
	at = index(result, ", p50")
	printf "%s, %d entries, %.1f entries a batch%s\n", substr(result, 1, at - 1), entries,
		entries / batches, substr(result, at)
}'
