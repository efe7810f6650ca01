#!/bin/sh
# SPDX-License-Identifier: MIT
# libreadyd's public names agree: readyd.h declares, readyd.sym exports, the built library has, and
# the manual pages tell, the same functions. The header compiles alone. The pages are clean.
#
# usage: [BUILD=FOLDER] test_symbols.sh [LIBREADYD.so]

set -u
root=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
library=${1:-${BUILD:-$root/build}/client-lib/libreadyd.so}
lib=$root/client-lib
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
failed=0

fail() {
	echo "$*" >&2
	failed=1
}

# same NAME-A FILE-A NAME-B FILE-B
same() {
	if [ ! -s "$2" ] || [ ! -s "$4" ]; then
		fail "no function found in $1 or $3"
	fi
	diff "$2" "$4" >"$work/diff" || {
		fail "$1 (<) and $3 (>) differ:"
		cat "$work/diff" >&2
	}
}

# Comments away, then the names before an opening parenthesis at the start of a declaration.
sed -e 's|/\*.*\*/||' -e '/\/\*/,/\*\//d' "$lib/readyd.h" |
	grep -oE '\breadyd_[a-z0-9_]+\(' | tr -d '(' | sort >"$work/header"
uniq -d "$work/header" | grep . && fail "declared twice"
sed -n 's/^[[:space:]]*\(readyd_[a-z0-9_]*\);$/\1/p' "$lib/readyd.sym" | sort >"$work/sym"
nm -D --defined-only "$library" | sed -n 's/^[0-9a-f]* [A-Z] \([a-z_0-9]*\)@@READYD_0$/\1/p' |
	sort >"$work/library"
nm -D --defined-only "$library" | grep -v -e '@@READYD_0$' -e ' A READYD_0' &&
	fail "the library exports what is not public"
sed -n 's/^\.Fn "\{0,1\}\(readyd_[a-z0-9_]*\)"\{0,1\} .*/\1/p; s/^\.Fo \(readyd_[a-z0-9_]*\)$/\1/p' \
	"$lib"/man/*.3 | sort -u >"$work/man"
# A synopsis may name a family as "readyd_list_*"; each member stands there by itself too.
grep -v '_$' "$work/man" >"$work/pages"
sed -n '/^\.Nm readyd/s/^\.Nm \(readyd_[a-z0-9_]*\).*/\1/p' "$lib"/man/*.3 | sort >"$work/names"

same readyd.h "$work/header" readyd.sym "$work/sym"
same "the library" "$work/library" readyd.sym "$work/sym"
same "the pages' synopses" "$work/pages" readyd.sym "$work/sym"
same "the pages' names" "$work/names" readyd.sym "$work/sym"

readelf -d "$library" | grep -q 'SONAME.*\[libreadyd\.so\.0\]' || fail "the soname is not libreadyd.so.0"

printf '#include "readyd.h"\nint main(void) { return readyd_version()[0] == 0; }\n' >"$work/alone.c"
cp "$work/alone.c" "$work/alone.cc"
${CC:-cc} -std=c99 -Wall -Wextra -pedantic -Werror -I"$lib" -c "$work/alone.c" -o "$work/alone.o" ||
	fail "readyd.h does not compile alone as C99"
if command -v c++ >/dev/null; then
	c++ -std=c++11 -Wall -Wextra -pedantic -Werror -I"$lib" -c "$work/alone.cc" \
		-o "$work/alone.o" || fail "readyd.h does not compile alone as C++"
fi

if command -v mandoc >/dev/null; then
	for page in "$lib"/man/*.3; do
		mandoc -T lint -W warning "$page" || fail "$page: see above"
	done
elif command -v groff >/dev/null; then
	for page in "$lib"/man/*.3; do
		[ -z "$(groff -mandoc -ww -z "$page" 2>&1)" ] || fail "$page: groff has warnings"
	done
fi

# What the meson file lists as aliases is what the pages name.
while read -r name; do
	grep -q "'$name'" "$lib/meson.build" || fail "meson.build installs no page for $name"
done <"$work/sym"

[ "$failed" = 0 ] && echo "$(wc -l <"$work/sym") symbols agree"
exit "$failed"
