#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds readyd with known faults switched on, one by one, and sees that a test catches each.
#
#   sh tests/mutants.sh [NAME]...
#
# A fault is an #ifdef READYD_MUTANT_NAME in the code. Here stand, for each, the programs that are
# built with it and the test that must fail. First all these tests must pass without a fault. Prints
# "ok NAME" with the words of the test that failed; a daemon that does not start, a test that hangs
# or whatever else goes wrong in between is not a catch.
# READYD_MUTANTS=N takes N of the faults, by READYD_SEED.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
. "$top/tests/lib.sh"

core="tests/unit_core tests/unit_core_table tests/unit_deadlines tests/unit_timers"
core="$core tests/unit_quota tests/model"
wire="daemon/readyd tests/conformance/conformance"
back="tests/unit_client_resume"

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
LANE_NOT_KEPT:$wire:items S-012
RESET_WITHOUT_TAKE:$wire:items S-036
ENTRY_BEFORE_ANSWER:$wire:items S-019
FD_KEPT:$wire:items S-010
RESUME_WITHOUT_WAITS:$back:units
RESUME_TELLS_TWICE:$back:units
PARK_TOLD_TWICE:tests/unit_client_park:units
TAKE_UNSETTLED:tests/unit_client_park:units
PARK_UNANSWERED:tests/park_model:units
PARK_EAGER:tests/park_model:units
"

b=$top/build/mutants
work=$(mktemp -d) || exit 1
out=$work/out
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Every program that was built, until one fails.
units() {
	for program in $built; do
		set --
		case $program in tests/*model) set -- --seed 1 --steps 50000 ;; esac
		timeout 60 "$b/$program" "$@" || return
	done
}

items() {
	READYD=$b/daemon/readyd timeout 180 "$b/tests/conformance/conformance" --backend epoll "$@"
}

# compile NAME PROGRAM...: with that fault; '' is none.
compile() {
	fault=$1
	shift
	meson configure "$b" -Dtests=enabled "-Dmutant=$fault" && ninja -C "$b" "$@"
}

# verdict STATUS: prints what the test said that has caught the fault, or why nothing has.
verdict() {
	case $1,$how in
	0,*)
		echo "no test noticed"
		return 1
		;;
	# timeout's own numbers; and conformance ends with 1 if an item failed, else it has not run
	12[4-7],* | [!1],items* | ??*,items*)
		echo "the tests were not run to their end: exit status $1"
		return 1
		;;
	esac
	# "core:", "parks:" and "timer heap:" are their checks before they abort
	case $how in
	items*) said='^not ok S-' ;;
	*) said='^\[  FAILED  \] [A-Za-z]|^model: difference:|^core: .*\(session |^timer heap: |^parks: |Assertion .* failed' ;;
	esac
	grep -m 1 -E "$said" "$out" && return
	echo "something failed, and no test says what: exit status $1"
	return 1
}

# not_ok NAME REASON: with the output.
not_ok() {
	echo "not ok $1: $2"
	sed 's/^/    /' "$out"
	status=1
}

# ---- What is asked for ----

for name in "$@"; do
	echo "$table" | grep -q "^$name:" || {
		echo "mutants.sh: there is no fault \"$name\"" >&2
		exit 2
	}
done
echo "$table" | while IFS=: read -r name built how; do
	case " ${*:-$name} " in
	*"  "*) ;;
	*" $name "*) echo "$name:$built:$how" ;;
	esac
done >"$work/table"
if [ -n "${READYD_MUTANTS-}" ]; then
	seed=${READYD_SEED:-$(date +%s)}
	echo "# READYD_SEED=$seed: $READYD_MUTANTS of $(grep -c . "$work/table") faults"
	awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand() "\t" $0 }' "$work/table" |
		sort -n | head -n "$READYD_MUTANTS" | cut -f 2- >"$work/sample"
	mv "$work/sample" "$work/table"
fi

status=0
# CRASH_ON_SYNC and DIE_AT_STEP are no faults but what the tests make a loop die by
faults=$(grep -rhow 'READYD_MUTANT_[A-Z_]*' protocol config daemon client-lib |
	grep -v -e CRASH_ON_SYNC -e DIE_AT_STEP | sort -u)
for name in $faults; do
	echo "$table" | grep -q "^${name#READYD_MUTANT_}:" || {
		echo "not ok ${name#READYD_MUTANT_}: in the code, and not in the table of mutants.sh"
		status=1
	}
done

# ---- Without a fault ----

# One build folder; only what a test needs is compiled.
[ -f "$b/build.ninja" ] || meson setup "$b" "$top" -Dbuildtype=debug \
	-Doptimization=0 >"$out" 2>&1 || {
	cat "$out"
	exit 1
}
programs=$(cut -d : -f 2 "$work/table" | tr ' ' '\n' | sort -u)
numbers=$(sed -n 's/.*:items //p' "$work/table" | tr ' ' '\n' | sort -u)
built=$(echo "$programs" | grep '^tests/unit_\|^tests/.*model$')
# shellcheck disable=SC2086
if ! compile '' $programs >"$out" 2>&1; then
	not_ok baseline "does not build"
elif ! units >"$out" 2>&1 || ! { [ -z "$numbers" ] || items $numbers >"$out" 2>&1; }; then
	not_ok baseline "these tests fail without any fault"
fi
[ $status = 0 ] || exit 1
echo "ok baseline"

# ---- With each ----

while IFS=: read -r name built how <&3; do
	# shellcheck disable=SC2086
	if ! compile "$name" $built >"$out" 2>&1; then
		not_ok "$name" "does not build"
		continue
	fi
	$how >"$out" 2>&1
	if words=$(verdict $?); then
		echo "ok $name: $words"
	else
		not_ok "$name" "$words"
	fi
done 3<"$work/table"
exit $status
