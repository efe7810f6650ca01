# SPDX-License-Identifier: MIT
# What the test commands share; sourced by run.sh, long.sh, quickstart.sh and mutants.sh, which
# have set `top` to the checkout.

# Packages for building, and for all tests.
BUILD_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libyaml-dev libjansson-dev"
TEST_PACKAGES="$BUILD_PACKAGES clang clang-format libclang-rt-dev libcmocka-dev g++ python3 mandoc strace codespell binutils"

# need PACKAGE...: installs those that are missing. An ordinary user gets them by sudo, where that
# works, or is told what is missing.
need() {
	missing=
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
			missing="$missing $package"
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" = 0 ]; then
		as_root=
	elif command -v sudo >/dev/null 2>&1; then
		as_root=sudo
	else
		echo "These packages are missing, and only root can install them:$missing" >&2
		echo "Run as root: apt-get update && apt-get install -y$missing" >&2
		return 1
	fi
	echo "installing:$missing"
	# shellcheck disable=SC2086
	$as_root apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq \
			--no-install-recommends $missing >/dev/null
}

# build DIRECTORY [MESON OPTION]...: configures it if need be, and compiles. Its output is shown
# only when something is wrong.
build() {
	directory=$1
	shift
	log=$(mktemp)
	if { [ -f "$directory/build.ninja" ] || meson setup "$directory" "$top" "$@"; } >"$log" 2>&1 &&
		ninja -C "$directory" >>"$log" 2>&1; then
		rm -f "$log"
		return 0
	fi
	cat "$log" >&2
	rm -f "$log"
	return 1
}

seconds() {
	date +%s
}
