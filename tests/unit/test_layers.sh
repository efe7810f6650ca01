#!/bin/sh
# SPDX-License-Identifier: MIT
# Who may include whom: dependencies run one way, edge -> core -> nothing; edge -> poller, protocol,
# config. And each header compiles alone, as C17.
#
# usage: test_layers.sh [CHECKOUT]

set -u
here=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
cd "${1:-$here}" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
failed=0

fail() {
	echo "$*" >&2
	failed=1
}

# may FILE INCLUDED: whether the layers allow it.
may() {
	case $1:$2 in
	# where the layers meet, only what is meant for others
	daemon/core/*:daemon/core/*) ;;
	*:daemon/core/core.h | *:daemon/core/park.h | *:daemon/core/park_group.h) ;;
	*:daemon/core/quota.h | *:daemon/util/cleanup.h) ;;
	*:daemon/core/*) return 1 ;;
	esac
	case $1:$2 in
	protocol/*:protocol/*) ;;
	config/*:config/*) ;;
	daemon/util/*:daemon/util/*) ;;
	daemon/core/*:daemon/core/* | daemon/core/*:daemon/util/*) ;;
	daemon/poller/*:daemon/poller/* | daemon/poller/*:daemon/util/*) ;;
	daemon/edge/*:daemon/keeper/*) return 1 ;;
	daemon/edge/*:daemon/* | daemon/edge/*:protocol/* | daemon/edge/*:config/*) ;;
	daemon/keeper/*:client-lib/*) return 1 ;;
	daemon/keeper/*:*) ;;
	client-lib/ctl/*:client-lib/ctl/* | client-lib/ctl/*:client-lib/readyd.h) ;;
	client-lib/examples/*:client-lib/examples/* | client-lib/examples/*:client-lib/readyd.h) ;;
	client-lib/ctl/* | client-lib/examples/*) return 1 ;;
	client-lib/*:client-lib/* | client-lib/*:protocol/*) ;;
	systemd/*:systemd/* | systemd/*:daemon/*) ;;
	*) return 1 ;;
	esac
}

# found FILE NAME: the file that an include means: beside the file, or from the top.
found() {
	if [ -f "$(dirname "$1")/$2" ]; then
		echo "$(dirname "$1")/$2"
	elif [ -f "$2" ]; then
		echo "$2"
	else
		return 1
	fi
}

find ./*/ -name '*.[ch]' | sed 's|^\./||' | sort |
	grep '^protocol/\|^config/\|^daemon/\|^client-lib/\|^systemd/' >"$work/files"
while read -r file; do
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\(.*\)".*/\1/p' "$file" >"$work/names"
	while read -r name; do
		if ! target=$(found "$file" "$name"); then
			fail "$file includes \"$name\", which is neither beside it nor seen from the top"
		elif ! may "$file" "$target"; then
			fail "$file may not include $target"
		fi
		echo "${file%/*}" >>"$work/seen"
	done <"$work/names"
done <"$work/files"
for folder in protocol config daemon/core daemon/poller daemon/edge daemon/keeper client-lib; do
	grep -qx "$folder" "$work/seen" || fail "no include seen in $folder: is this the checkout?"
done

# The core makes no system call and knows no clock: nothing but the language's own headers, and those
# of libc's containers.
pure=' assert errno inttypes limits search stdbool stddef stdint stdio stdlib string sys/queue '
for file in daemon/core/*.[ch]; do
	[ "$file" != daemon/util/cleanup.h ] || continue
	sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<\(.*\)\.h>.*/\1/p' "$file" >"$work/names"
	while read -r name; do
		case $pure in *" $name "*) ;; *) fail "$file may not include <$name.h>" ;; esac
	done <"$work/names"
done

grep '\.h$' "$work/files" >"$work/headers" || fail "no header found"
while read -r header; do
	echo "#include \"$header\"" |
		${CC:-cc} -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -I. -fsyntax-only -x c - ||
		fail "$header does not compile alone"
done <"$work/headers"

[ "$failed" = 0 ] && echo "$(wc -l <"$work/seen") includes, $(wc -l <"$work/headers") headers"
exit "$failed"
