# SPDX-License-Identifier: MIT
# What the test commands share; sourced by run.sh, long.sh, quickstart.sh and mutants.sh, which
# have set `top` to the checkout and are in it. Functions share their variables in sh: those of
# each one here begin with its name.
# shellcheck shell=sh disable=SC2034,SC2154

# Packages for building, and for all tests.
BUILD_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libyaml-dev libjansson-dev
	libsystemd-dev"
TEST_PACKAGES="$BUILD_PACKAGES clang clang-format libclang-rt-dev libcmocka-dev g++ python3 mandoc
	strace codespell shellcheck binutils systemd socat"

# What the tests are built with. The quickstart needs none of it, and does not mind.
TEST_OPTIONS="-Dtests=enabled -Dwerror=true"

# need PACKAGE...: installs those that are missing. An ordinary user gets them by sudo, where that
# works, or is told what is missing. Where there is no dpkg, the build says what it misses.
need() {
	command -v dpkg-query >/dev/null 2>&1 || return 0
	need_missing=
	for need_package in "$@"; do
		dpkg-query -W -f '${Status}\n' "$need_package" 2>/dev/null | grep -q 'ok installed' ||
			need_missing="$need_missing $need_package"
	done
	[ -n "$need_missing" ] || return 0
	if [ "$(id -u)" = 0 ]; then
		need_root=
	elif command -v sudo >/dev/null 2>&1; then
		need_root=sudo
	else
		echo "These packages are missing, and only root can install them:$need_missing" >&2
		echo "Run as root: apt-get update && apt-get install -y$need_missing" >&2
		return 1
	fi
	echo "installing:$need_missing"
	# shellcheck disable=SC2086
	$need_root apt-get update -qq &&
		$need_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends $need_missing >/dev/null
}

# build DIRECTORY [MESON OPTION]...: configures it if need be, and compiles. Its output is shown
# only when something is wrong. A directory that exists is configured again when it was made with
# other options, or somebody has changed one since; without options, it keeps what it has.
build() {
	build_in=$1
	shift
	build_log=$(mktemp) || return 1
	if build_configure "$@" >"$build_log" 2>&1 && ninja -C "$build_in" >>"$build_log" 2>&1; then
		[ $# = 0 ] || echo "$*" >"$build_in/options-of-tests"
		rm -f "$build_log"
		return 0
	fi
	cat "$build_log" >&2
	rm -f "$build_log"
	return 1
}

build_configure() {
	if [ ! -f "$build_in/build.ninja" ]; then
		meson setup "$build_in" "$top" "$@"
	elif [ $# -gt 0 ] && ! build_has "$*"; then
		meson setup --reconfigure "$build_in" "$top" "$@"
	fi
}

# Whether the directory has these options still: meson writes coredata.dat when one changes.
build_has() {
	[ "$(cat "$build_in/options-of-tests" 2>/dev/null)" = "$1" ] &&
		[ -n "$(find "$build_in/options-of-tests" \
			-newer "$build_in/meson-private/coredata.dat")" ]
}

# unit_tests BUILD: every program of tests/unit. A "not ok" line for one that did not end well:
# cmocka says nothing of a test that aborts.
unit_tests() {
	unit_tests_status=0
	READYD_YAML=$top/config/readyd.yaml
	export READYD_YAML
	for unit_tests_one in "$1"/tests/unit_*; do
		if [ ! -x "$unit_tests_one" ] || [ ! -f "$unit_tests_one" ]; then
			continue
		fi
		echo "== $(basename "$unit_tests_one")"
		timeout 300 "$unit_tests_one" || {
			echo "not ok $(basename "$unit_tests_one"): exit status $?"
			unit_tests_status=1
		}
	done
	return $unit_tests_status
}

seconds() {
	date +%s
}
