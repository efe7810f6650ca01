#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds readyd and runs its tests: the short tier.
#
#   sh tests/run.sh [--build FOLDER] [STEP]...
#
# Installs what it needs. Without steps: all of them, in order. With --build, tests what is built in
# that folder, as `meson test` does, and neither installs nor builds. Output of each step is kept in
# test-logs in the build folder. Ends with the line "N passed, N failed"; exit status 1 if anything
# failed.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
given=
if [ "${1-}" = --build ]; then
	given=$(cd "${2:?--build needs a folder}" && pwd) || exit 1
	shift 2
fi
cd "$top" || exit 1
. "$top/tests/lib.sh"

b=${given:-$top/build}
logs=$b/test-logs
passed=0 failed=0 skipped=0
steps=${*:-"install build format docs unit model conformance interop integration system examples sanitize
	mutants"}

# Counts what a log says: cmocka's lines, "ok"/"not ok"/"skip" lines, and unittest's. cmocka names
# a failure or a skip again at the end of each program.
count() { # LOG
	awk '
		/^== /                    { program = $2 }
		/^\[ +OK \] /             { pass[FNR] }
		/^\[  FAILED  \] [A-Za-z_]/ && !/tests?:/  { fail[program $0] }
		/^\[  SKIPPED \] [A-Za-z_]/ && !/tests?:/  { skip[program $0] }
		/^ok / || / \.\.\. ok$/   { pass[FNR] }
		/^not ok / || / \.\.\. (FAIL|ERROR)$/      { fail[FNR] }
		/^skip / || / \.\.\. skipped /             { skip[FNR] }
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
	case $this in
	install | build | format | examples)
		[ "$this_status" != 0 ] || [ "$good" -gt 0 ] || good=1
		;;
	*)
		# what says nothing has tested nothing
		this_told=$((good + bad))
		# where no systemd can be booted, each of its tests is skipped by name
		[ "$this" != system ] || this_told=$((this_told + left))
		[ "$this_told" -gt 0 ] || {
			echo "not ok $this: no test has run" >>"$logs/$this.log"
			bad=1
		}
		;;
	esac
	[ "$this_status" = 0 ] || [ "$bad" -gt 0 ] || bad=1
	passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left))
	printf '%-12s %5d passed %3d failed %3d skipped %5d s\n' "$this" "$good" "$bad" "$left" \
		$(($(seconds) - this_begin))
	grep -h '^skip \|^\[  SKIPPED \] [a-z]*_\| \.\.\. skipped ' "$logs/$this.log" | sort -u
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
	# shellcheck disable=SC2086
	build "$b" $TEST_OPTIONS &&
		CC=clang build "$b/clang" $TEST_OPTIONS
}

# sources NAME...: the checkout's files with such names, in a clone or not; nothing that was built.
sources() {
	for sources_name in "$@"; do
		find . \( -path './build*' -o -name .git -o -name __pycache__ -o \
			-type d -exec test -d '{}/meson-private' \; \) -prune -o \
			-type f -name "$sources_name" -print
	done
}

step_format() {
	sources '*.c' '*.h' | xargs clang-format --dry-run -Werror &&
		{ sources '*.sh' && echo .ci/run; } | xargs shellcheck -x &&
		sources '*' | grep -v -e '^\./LICENSE$' -e '\.hex$' | xargs codespell -L nd,fo
}

# told NAME COMMAND...: runs it and says how it went.
told() {
	told_name=$1
	shift
	if "$@"; then
		echo "ok $told_name"
	else
		echo "not ok $told_name"
		status=1
	fi
}

# The documents say what the code does, and the code is in the layers that it should be.
step_docs() {
	status=0
	export READYD="$b/daemon/readyd" READYCTL="$b/client-lib/ctl/readyctl" BUILD="$b"
	for script in tests/unit/test_*.py; do
		told "$(basename "$script" .py)" python3 "$script"
	done
	for script in tests/unit/test_*.sh; do
		told "$(basename "$script" .sh)" sh "$script"
	done
	for page in $(sources '*.[1-8]'); do
		told "manual $page" mandoc -T lint -W warning "$page"
	done
	return $status
}

step_unit() {
	unit_tests "$b"
}

# model BUILD STEPS: a seed of today's choosing; a failure prints the command that repeats it.
model() {
	seed=${READYD_SEED:-$(seconds)}
	for variant in 0 1; do
		for program in model park_model; do
			"$1/tests/$program" --seed $((seed + variant)) --steps "$2" || return 1
			echo "ok $program seed $((seed + variant))"
		done
	done
}

step_model() {
	model "$b" 1000000
}

# conformance BUILD LOG: over the wire on both backends; LOG is what the unit tests of that build
# said, which show some of the items.
conformance() {
	status=0
	for backend in epoll poll; do
		READYD=$1/daemon/readyd "$1/tests/conformance/conformance" --backend $backend \
			--also "$2" || status=1
	done
	return $status
}

step_conformance() {
	# the log of this run's unit step, if it had one
	[ -f "$logs/unit.log" ] || unit_tests "$b" >"$logs/unit.log" 2>&1
	conformance "$b" "$logs/unit.log"
}

step_interop() {
	READYD=$b/daemon/readyd python3 tests/interop/conformance.py
}

# lane BUILD QUEUE: runs the scripts that QUEUE names, those that no other lane has begun.
lane() {
	lane_status=0
	while read -r script; do
		mkdir "$2.$(basename "$script")" 2>/dev/null || continue
		echo "== $script"
		READYD=$1/daemon/readyd READYCTL=$1/client-lib/ctl/readyctl \
			READYD_DAEMON=$1/daemon/readyd READYD_ECHO=$1/client-lib/examples/echo \
			READYD_LOAD=$1/tests/load READYD_BUILD=$1 \
			timeout 300 python3 "$script" </dev/null || {
			echo "not ok $script: exit status $?"
			lane_status=1
		}
	done <"$2"
	return $lane_status
}

# integration BUILD [PART]: in two lanes, since most of their time is waiting; PART of them, by a seed.
integration() {
	status=0
	queue=$logs/queue
	rm -rf "$queue" "$queue".*
	ls tests/integration/test_*.py >"$queue"
	if [ "${2-1}" != 1 ]; then
		seed=${READYD_SEED:-$(seconds)}
		echo "# READYD_SEED=$seed: $2 of the scripts; sh tests/long.sh sanitize runs all"
		awk -v seed="$seed" -v part="$2" 'BEGIN { srand(seed) } rand() < part' \
			"$queue" >"$queue.part"
		mv "$queue.part" "$queue"
	fi
	lane "$1" "$queue" >"$logs/lane.log" 2>&1 &
	integration_other=$!
	lane "$1" "$queue" || status=1
	wait "$integration_other" || status=1
	rm -rf "$queue" "$queue".*
	cat "$logs/lane.log"
	return $status
}

step_integration() {
	# a loop that dies when it is told to, for the tests of the keeper and of parks; and the other
	# version, for those of upgrades
	build "$b/crashing" -Dtests=disabled -Dmutant=CRASH_ON_SYNC,DIE_AT_STEP \
		-Dversion_suffix=+crashing || return 1
	READYD_CRASHING=$b/crashing/daemon/readyd
	export READYD_CRASHING
	integration "$b"
}

# What is built, installed, as a service of a real systemd. Where none can be booted, nothing is
# tested, and the step says so, test by test.
step_system() {
	timeout 600 sh tests/system/run.sh "$b"
}

step_examples() {
	sh tests/quickstart.sh --quick
}

# Once more under AddressSanitizer and UndefinedBehaviorSanitizer; of the integration tests a part.
step_sanitize() {
	s=$b/sanitize
	# shellcheck disable=SC2086
	build "$s" $TEST_OPTIONS -Db_sanitize=address,undefined -Db_lundef=false || return 1
	export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1
	export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
	sanitize_status=0
	unit_tests "$s" >"$logs/sanitize-unit.log" 2>&1 || sanitize_status=1
	cat "$logs/sanitize-unit.log"
	model "$s" 100000 || sanitize_status=1
	conformance "$s" "$logs/sanitize-unit.log" || sanitize_status=1
	READYD_KILLS=${READYD_KILLS:-60} integration "$s" "${READYD_PART:-0.4}" || sanitize_status=1
	return $sanitize_status
}

# A sample; `sh tests/long.sh mutants` tries all.
step_mutants() {
	READYD_MUTANTS=${READYD_MUTANTS:-8} sh tests/mutants.sh
}

# ---- The run ----

for wanted in $steps; do
	case $given:$wanted in
	:install | :build | *:format | *:docs | *:unit | *:model | *:conformance | *:interop) ;;
	*:integration | *:system | :examples | :sanitize | :mutants) ;;
	*)
		echo "run.sh: there is no step \"$wanted\"${given:+ with --build}" >&2
		exit 2
		;;
	esac
done
mkdir -p "$logs" || exit 1
rm -f "$logs/unit.log" "$logs/sanitize-unit.log"
for wanted in $steps; do
	rm -f "$logs/$wanted.log"
done

# chosen steps test what the checkout is now
case "$given $steps " in
/* | *" build "*) ;;
*)
	# shellcheck disable=SC2086
	need $TEST_PACKAGES && build "$b" $TEST_OPTIONS || exit 1
	;;
esac

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
