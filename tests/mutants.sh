#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds readyd with known faults switched on, one by one, and sees that a test catches each.
#
#   sh tests/mutants.sh [NAME]...
#
# A fault is an #ifdef READYD_MUTANT_NAME in the code. Here stand, for each, the programs that are
# built with it and the test that must fail. Prints "ok NAME" when it did.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/lib.sh"
cd "$top" || exit 1

core="tests/unit_core tests/unit_core_table tests/unit_timers tests/unit_quota tests/model"
wire="daemon/readyd tests/conformance/conformance"

# NAME: what is built: how it is run
table="
STALE_EXPIRY:$core:units
LATCH_LOST_AT_EXPIRY:$core:units
QUOTA_NOT_GIVEN_BACK:$core:units
GENERATION_NOT_CHECKED:$core:units
EVICT_LEAVES_WAITER:$core:units
BUSY_NOT_CHECKED:$core:units
TIMEOUT_FAILS_OTHER_SIDE:$core:units
ERROR_STICKS:$core:units
COMMIT_KEEPS_PENDING:$core:units
RESET_BEFORE_CHECK:$core:units
MOD_ON_EEXIST:$wire:items S-011
BREAK_LOST_BY_ASKING:tests/unit_poller tests/unit_client:units
CLEAR_BEFORE_SEND:$wire:items S-074
LANE_NOT_KEPT:$wire:items S-006 S-012
RESET_WITHOUT_TAKE:$wire:items S-036
ENTRY_BEFORE_ANSWER:$wire:items S-019
FD_KEPT:$wire:items S-010
"

# Every program that was built; the first that fails has caught it.
units() {
	for program in $built; do
		case $program in
		*/model) timeout 60 "$b/$program" --seed 1 --steps 50000 || return 1 ;;
		*) timeout 60 "$b/$program" || return 1 ;;
		esac
	done
}

items() {
	READYD=$b/daemon/readyd timeout 120 "$b/tests/conformance/conformance" --backend epoll "$@"
}

status=0
b=$top/build/mutants
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# One build folder: only what a fault changes is compiled again (ccache is not needed).
[ -f "$b/build.ninja" ] || meson setup "$b" "$top" -Dbuildtype=debug -Doptimization=0 >"$out" 2>&1 || {
	cat "$out"
	exit 1
}
echo "$table" | sed '/^$/d' >"$out.table"
while IFS=: read -r name built how <&3; do
	case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
	meson configure "$b" "-Dmutant=$name" >"$out" 2>&1
	# shellcheck disable=SC2086
	if ! ninja -C "$b" $built >>"$out" 2>&1; then
		echo "not ok $name: does not build"
		cat "$out"
		status=1
	elif $how >"$out" 2>&1; then
		echo "not ok $name: no test noticed"
		status=1
	else
		echo "ok $name: $(grep -m 1 -E '^not ok|^\[  FAILED  \] [A-Za-z]|differ|Assertion' "$out")"
	fi
done 3<"$out.table"
rm -f "$out.table"
exit $status
