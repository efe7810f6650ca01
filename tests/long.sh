#!/bin/sh
# SPDX-License-Identifier: MIT
# The long tier: everything in full, with the sanitizers and under valgrind.
#
#   sh tests/long.sh [PART]...      model conformance sanitize valgrind kills steps soak mutants;
#                                   default: all
#   sh tests/long.sh soak [SECONDS] default: 600
#
# Prints a line a part, with its seconds, and ends with "N passed, N failed" (parts).
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top" || exit 1
. "$top/tests/lib.sh"
logs=$top/build/long-logs
passed=0 failed=0

# The random model tests (edge and level cores; parks), 50 seeds of a million steps each.
part_model() {
	seed=${READYD_SEED:-$(seconds)}
	for i in $(seq 50); do
		build/tests/model --seed $((seed + i)) --steps 1000000 || return 1
		build/tests/park_model --seed $((seed + i)) --steps 1000000 || return 1
	done
}

# All items with full counts (S-029: 100,000 rounds), both backends.
part_conformance() {
	status=0
	unit_tests "$top/build" >"$logs/unit.log" 2>&1 || status=1
	for backend in epoll poll; do
		READYD=$top/build/daemon/readyd build/tests/conformance/conformance --full \
			--backend $backend --also "$logs/unit.log" || status=1
	done
	return $status
}

part_sanitize() {
	s=$top/build/sanitize
	# shellcheck disable=SC2086
	build "$s" $TEST_OPTIONS -Db_sanitize=address,undefined -Db_lundef=false || return 1
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	status=0
	unit_tests "$s" >"$logs/sanitize-unit.log" 2>&1 || {
		cat "$logs/sanitize-unit.log"
		status=1
	}
	"$s/tests/model" --seed "$(seconds)" --steps 2000000 --paranoid || status=1
	"$s/tests/park_model" --seed "$(seconds)" --steps 2000000 || status=1
	READYD=$s/daemon/readyd "$s/tests/conformance/conformance" --full --backend epoll \
		--also "$logs/sanitize-unit.log" || status=1
	unset ASAN_OPTIONS UBSAN_OPTIONS
	READYD_PART=1 sh tests/run.sh sanitize || status=1
	return $status
}

# Without epoll_pwait2 (valgrind has none), every error and every leak fails.
part_valgrind() {
	need valgrind || return 1
	wrapper=$logs/readyd-valgrind
	cat >"$wrapper" <<-EOS
		#!/bin/sh
		exec valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
			--log-file="$logs/valgrind.%p" "$top/build/daemon/readyd" --no-keeper "\$@"
	EOS
	chmod +x "$wrapper"
	rm -f "$logs"/valgrind.[0-9]*
	READYD=$wrapper READYD_TEST_SCALE=10 build/tests/conformance/conformance --backend epoll \
		S-001 S-002 S-006 S-011 S-013 S-016 S-031 S-039 S-056 S-059 S-072 S-082 S-083 S-093 \
		S-094 S-103 S-104 || return 1
	ls "$logs"/valgrind.[0-9]* || return 1
	# it does not know F_DUPFD_QUERY, which then is an error to us, as on older kernels
	! grep -h '^==' "$logs"/valgrind.[0-9]* | grep -v 'unimplemented fcntl command'
}

# Programs on libreadyd, and workers of groups, while they, the daemon, its loop, or its holders are
# killed: 10,000 times each.
part_kills() {
	READYD=$top/build/daemon/readyd READYD_DAEMON=$top/build/daemon/readyd READYD_BUILD=$top/build \
		READYD_KILLS=${READYD_KILLS:-10000} python3 tests/integration/test_resume.py &&
		READYD=$top/build/daemon/readyd READYCTL=$top/build/client-lib/ctl/readyctl \
			READYD_BUILD=$top/build READYD_KILLS=${READYD_KILLS:-10000} \
			python3 tests/integration/test_park.py &&
		READYD=$top/build/daemon/readyd READYD_KILLS=${READYD_KILLS:-10000} \
			python3 tests/integration/test_groups_deaths.py
}

# The loop dies at each step of what it does for parks, and the next one at each of its own.
part_steps() {
	build "$top/build/crashing" -Dtests=disabled -Dmutant=CRASH_ON_SYNC,DIE_AT_STEP \
		-Dversion_suffix=+crashing || return 1
	for script in test_parks_steps test_parks_steps_durable; do
		READYD=$top/build/daemon/readyd READYD_CRASHING=$top/build/crashing/daemon/readyd \
			READYD_STEPS=all python3 tests/integration/$script.py || return 1
	done
}

# All of it together, and what is done to the daemon at random moments: tests/soak.py.
part_soak() {
	READYD=$top/build/daemon/readyd READYD_DAEMON=$top/build/daemon/readyd READYD_BUILD=$top/build \
		python3 tests/soak.py "$soak_seconds"
}

part_mutants() {
	sh tests/mutants.sh
}

soak_seconds=600 parts=
for name in "$@"; do
	case $name in
	[1-9]*) soak_seconds=$name ;;
	*) parts="$parts $name" ;;
	esac
done
parts=${parts:-model conformance sanitize valgrind kills steps soak mutants}
for name in $parts; do
	case $name in
	model | conformance | sanitize | valgrind | kills | steps | soak | mutants) ;;
	*)
		echo "long.sh: there is no part \"$name\"" >&2
		exit 2
		;;
	esac
done
# shellcheck disable=SC2086
need $TEST_PACKAGES && build "$top/build" $TEST_OPTIONS || exit 1
mkdir -p "$logs" || exit 1
for name in $parts; do
	begin=$(seconds)
	if "part_$name" >"$logs/$name.log" 2>&1; then
		echo "ok $name, $(($(seconds) - begin)) s"
		grep -h '^summary: \| summary: ' "$logs/$name.log"
		passed=$((passed + 1))
	else
		echo "not ok $name, $(($(seconds) - begin)) s; the end of $logs/$name.log:"
		tail -n 30 "$logs/$name.log"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
