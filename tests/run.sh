#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds readyd and runs its tests: the short tier.
#
#   sh tests/run.sh [STEP]...
#
# Installs what it needs. Without steps: all of them, in order. Output of each step is kept in
# build/test-logs. Ends with the line "N passed, N failed"; exit status 1 if anything failed.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/lib.sh"
cd "$top" || exit 1

logs=$top/build/test-logs
passed=0 failed=0 skipped=0
steps=${*:-"install build format docs unit model conformance interop integration examples sanitize mutants"}

# Counts what a log says: cmocka's lines, "ok"/"not ok"/"skip" lines, and unittest's.
count() { # LOG
	awk '
		/^\[ +OK \] /             { pass[$0] = 1 }
		/^\[  FAILED  \] [A-Za-z_]/ && !/tests?:/ { fail[$0] = 1 }
		/^ok /                    { pass[FNR $0] = 1 }
		/^not ok /                { fail[FNR $0] = 1 }
		/^skip /                  { skip[FNR $0] = 1 }
		/ \.\.\. ok$/             { pass[FNR $0] = 1 }
		/ \.\.\. (FAIL|ERROR)$/   { fail[FNR $0] = 1 }
		/ \.\.\. skipped /        { skip[FNR $0] = 1 }
		END {
			for (i in pass) p++
			for (i in fail) f++
			for (i in skip) s++
			print p + 0, f + 0, s + 0
		}' "$1"
}

# step NAME: runs step_NAME, counts, prints one line. (Functions share their variables in sh: those
# of this one begin with "this".)
step() {
	this=$1
	this_begin=$(seconds)
	"step_$this" >"$logs/$this.log" 2>&1
	this_status=$?
	# shellcheck disable=SC2046
	set -- $(count "$logs/$this.log")
	good=$1 bad=$2 left=$3
	[ "$this_status" = 0 ] || [ "$bad" -gt 0 ] || bad=1
	[ "$this_status" != 0 ] || [ "$((good + bad))" -gt 0 ] || good=1
	passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left))
	printf '%-12s %5d passed %3d failed %3d skipped %5d s\n' "$this" "$good" "$bad" "$left" \
		$(($(seconds) - this_begin))
	grep -h '^skip \| \.\.\. skipped ' "$logs/$this.log"
	if [ "$bad" -gt 0 ]; then
		grep -h '^not ok \|^\[  FAILED  \]\| \.\.\. \(FAIL\|ERROR\)$' "$logs/$this.log" | sort -u
		echo "---- the end of $logs/$this.log:"
		tail -n 40 "$logs/$this.log"
		echo "----"
	fi
}

# ---- Steps ----

step_install() {
	# shellcheck disable=SC2086
	need $TEST_PACKAGES
}

# Both compilers, warnings are errors.
step_build() {
	build "$top/build" -Dwerror=true &&
		CC=clang build "$top/build/clang" -Dwerror=true
}

step_format() {
	git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror &&
		codespell -L nd,fo $(git ls-files ':!LICENSE' ':!*.hex')
}

# The documents say what the code does.
step_docs() {
	status=0
	for script in tests/unit/test_*.py; do
		name=$(basename "$script" .py)
		if READYD=build/daemon/readyd READYCTL=build/client-lib/ctl/readyctl python3 "$script"; then
			echo "ok $name"
		else
			echo "not ok $name"
			status=1
		fi
	done
	if sh tests/unit/test_symbols.sh build/client-lib/libreadyd.so "$top"; then
		echo "ok test_symbols"
	else
		echo "not ok test_symbols"
		status=1
	fi
	for page in $(git ls-files '*.[1-8]'); do
		if mandoc -T lint -W warning "$page"; then
			echo "ok manual $page"
		else
			echo "not ok manual $page"
			status=1
		fi
	done
	return $status
}

# unit_tests BUILD: every program of tests/unit.
unit_tests() {
	status=0
	export READYD_YAML=$top/config/readyd.yaml
	for test in "$1"/tests/unit_*; do
		[ -x "$test" ] && [ -f "$test" ] || continue
		echo "== $(basename "$test")"
		timeout 300 "$test" || { echo "exit status $? of $test" && status=1; }
	done
	return $status
}

step_unit() {
	unit_tests build
}

# A seed of today's choosing; a failure prints the command that repeats it.
step_model() {
	seed=${READYD_SEED:-$(seconds)}
	for variant in 0 1; do
		build/tests/model --seed $((seed + variant)) --steps 1000000 || return 1
		echo "ok model seed $((seed + variant))"
	done
}

# conformance BUILD: over the wire on both backends; items shown elsewhere come from the unit tests.
conformance() {
	status=0
	for backend in epoll poll; do
		READYD=$1/daemon/readyd "$1/tests/conformance/conformance" --backend $backend \
			--also "$logs/unit.log" || status=1
	done
	return $status
}

step_conformance() {
	conformance "$top/build"
}

step_interop() {
	READYD=$top/build/daemon/readyd python3 tests/interop/conformance.py
}

# integration BUILD: each script of tests/integration.
integration() {
	status=0
	for script in tests/integration/test_*.py; do
		echo "== $script"
		READYD=$1/daemon/readyd READYCTL=$1/client-lib/ctl/readyctl \
			READYD_DAEMON=$1/daemon/readyd READYD_ECHO=$1/client-lib/examples/echo \
			READYD_LOAD=$1/tests/load READYD_BUILD=$1 \
			timeout 300 python3 "$script" || status=1
	done
	return $status
}

step_integration() {
	integration "$top/build"
}

step_examples() {
	sh tests/quickstart.sh --quick
}

# All of it once more under AddressSanitizer and UndefinedBehaviorSanitizer.
step_sanitize() {
	b=$top/build/sanitize
	build "$b" -Db_sanitize=address,undefined -Db_lundef=false -Dwerror=true || return 1
	ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	export ASAN_OPTIONS UBSAN_OPTIONS
	status=0
	unit_tests "$b" || status=1
	"$b/tests/model" --seed "$(seconds)" --steps 200000 || status=1
	conformance "$b" || status=1
	integration "$b" || status=1
	return $status
}

step_mutants() {
	sh tests/mutants.sh
}

mkdir -p "$logs" || exit 1
started=$(seconds)
for wanted in $steps; do
	step "$wanted"
	# nothing can be tested that does not build
	case $wanted in
	install | build) [ "$failed" = 0 ] || break ;;
	esac
done
echo "seconds in all: $(($(seconds) - started)); skipped: $skipped"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
