#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs what is built in BUILD into a folder, boots a systemd on it, and runs test_systemd.py
# beside that. Where no systemd can be booted, each test is named and skipped with the reason.
#
#   sh tests/system/run.sh BUILD [TEST]...
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit 1
build=$(cd "${1:?which build folder?}" && pwd) || exit 1
shift
stage=$(mktemp -d) || exit 1
pid=''
# shellcheck disable=SC2317
clean_up() {
	trap - EXIT INT TERM
	[ -z "$pid" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null
	rm -rf "$stage"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# in the background, so that our traps run at once
boot() {
	sh "$here/systemd-ns.sh" "$stage" "$@" 2>"$stage/errors" &
	pid=$!
	wait $pid
	status=$?
	pid=''
	return $status
}

tests=/opt/readyd-tests
mkdir -p "$stage$tests" || exit 1
if ! boot true; then
	if [ $status = 77 ]; then
		READYD_SKIP_SYSTEM=$(tail -n 1 "$stage/errors") READYD='' \
			python3 "$here/test_systemd.py" "$@" 2>&1
		exit
	fi
	cat "$stage/errors" >&2
	exit 1
fi

DESTDIR=$stage meson install -C "$build" --no-rebuild --quiet >"$stage/log" 2>&1 || {
	cat "$stage/log" >&2
	exit 1
}
cp "$here/test_systemd.py" "$here/probe.py" "$here/../integration/daemon.py" \
	"$here/../interop/readyd_client.py" "$here/../../daemon/keeper/readyd.8" \
	"$build/tests/resume" "$stage$tests" || exit 1
prefix=$(cd "$stage" && dirname "$(dirname "$(find . -path '*/bin/readyctl' | sed 's/^\.//')")")
boot env "READYD=$prefix/sbin/readyd" "READYCTL=$prefix/bin/readyctl" "READYD_PREFIX=$prefix" \
	PYTHONDONTWRITEBYTECODE=1 python3 $tests/test_systemd.py "$@"
cat "$stage/errors"
exit $status
