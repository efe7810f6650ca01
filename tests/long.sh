#!/bin/sh
# SPDX-License-Identifier: MIT
# The long tier: everything in full, with the sanitizers and under valgrind.
#
#   sh tests/long.sh [PART]...      model conformance sanitize valgrind mutants; default: all
#
# Prints a line a part, with its seconds, and ends with "N passed, N failed" (parts).
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/lib.sh"
cd "$top" || exit 1
logs=$top/build/long-logs
passed=0 failed=0

# The random model test, edge and level cores, 50 seeds of a million steps.
part_model() {
	seed=${READYD_SEED:-$(seconds)}
	for i in $(seq 50); do
		build/tests/model --seed $((seed + i)) --steps 1000000 || return 1
	done
}

# All items with full counts (S-029: 100,000 rounds), both backends.
part_conformance() {
	status=0
	for test in build/tests/unit_*; do
		[ -x "$test" ] && [ -f "$test" ] && "$test"
	done >"$logs/unit.log" 2>&1
	for backend in epoll poll; do
		READYD=$top/build/daemon/readyd build/tests/conformance/conformance --full \
			--backend $backend --also "$logs/unit.log" || status=1
	done
	return $status
}

part_sanitize() {
	b=$top/build/sanitize
	build "$b" -Db_sanitize=address,undefined -Db_lundef=false || return 1
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	"$b/tests/model" --seed "$(seconds)" --steps 2000000 --paranoid || return 1
	READYD=$b/daemon/readyd "$b/tests/conformance/conformance" --full --backend epoll \
		--also "$logs/unit.log"
}

# Without epoll_pwait2 (valgrind has none), every error and every leak fails.
part_valgrind() {
	need valgrind || return 1
	wrapper=$logs/readyd-valgrind
	cat >"$wrapper" <<-EOS
		#!/bin/sh
		exec valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
			--log-file=$logs/valgrind.%p "$top/build/daemon/readyd" "\$@"
	EOS
	chmod +x "$wrapper"
	rm -f "$logs"/valgrind.[0-9]*
	READYD=$wrapper READYD_TEST_SCALE=10 build/tests/conformance/conformance --backend epoll \
		S-001 S-002 S-006 S-011 S-013 S-016 S-031 S-039 S-056 S-059 S-072 S-082 S-083 S-093 \
		S-094 S-103 S-104 || return 1
	# it does not know F_DUPFD_QUERY, which then is an error to us, as on older kernels
	! grep -h '^==' "$logs"/valgrind.[0-9]* | grep -v 'unimplemented fcntl command'
}

part_mutants() {
	sh tests/mutants.sh
}

# shellcheck disable=SC2086
need $TEST_PACKAGES || exit 1
mkdir -p "$logs"
build "$top/build" || exit 1
for name in ${*:-model conformance sanitize valgrind mutants}; do
	begin=$(seconds)
	if "part_$name" >"$logs/$name.log" 2>&1; then
		echo "ok $name, $(($(seconds) - begin)) s"
		passed=$((passed + 1))
	else
		echo "not ok $name, $(($(seconds) - begin)) s; the end of $logs/$name.log:"
		tail -n 30 "$logs/$name.log"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
