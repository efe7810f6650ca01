#!/bin/sh
# SPDX-License-Identifier: MIT
# A prefork HTTP server with keep-alive, in shell: any number of connections that have nothing to say,
# and JOBS handlers at most.
#
#   sh shell-server.sh [--front socat | systemd] PORT [JOBS]
#
# Three parts, that know nothing of each other but the name of a group:
#   the front    accepts, and parks each new connection;
#   readyctl     take --each: runs the handler for each one that has something to say;
#   the handler  reads one request, answers it, and parks the connection again.
# Any of them may be killed and started again: what is parked stays, and so it does when all of this
# has ended. Serves on 127.0.0.1 until SIGTERM or SIGINT. Needs a running readyd, and socat or
# systemd-socket-activate.
set -u
group=${GROUP:-shell}
readyctl=${READYCTL:-readyctl}
idle=${IDLE:-60} # seconds without a request, after which readyd closes a connection
export GROUP="$group" READYCTL="$readyctl" IDLE="$idle"

# What parks stdin. Its stdout is the connection, too, and is not for readyctl's words.
park() { # NOTE
	exec "$readyctl" park --group "$group" --deadline "$idle" --note "$1" >/dev/null
}

# The connection is stdin and stdout. `read` takes one byte at a time, and so nothing that comes after
# this request: what is parked has been read to the end of a request and no further.
handle() {
	cr=$(printf '\r') lf='
'
	close='' n=${READYD_NOTE:-0}
	# in $((...)) some shells carry out what stands in the text, and who may park into the group wrote it
	case $n in
	*[!0-9]* | 0?* | ??????????*) n=0 ;;
	esac
	n=$((n + 1))
	read -r method path version || exit 0 # the peer has closed it
	while read -r header && [ "${header%"$cr"}" ]; do
		case $header in
		[Cc]onnection:*[Cc]lose*) close=yes ;;
		esac
	done
	case "$method ${version%"$cr"} $path" in
	"GET HTTP/1.1 /") status="200 OK" body="request $n of this connection, answered by process $$" ;;
	"GET HTTP/1.1 "*) status="404 Not Found" body="there is no such page" ;;
	*) status="501 Not Implemented" body="only GET, and only HTTP/1.1" close=yes ;;
	esac
	printf 'HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s\n' "$status" $((${#body} + 1)) \
		"${close:+Connection: close$cr$lf}" "$body"
	[ "$close" ] || park "$n"
}

# Runs this script for each new connection, as inetd would.
front() { # PORT
	case $front in
	socat)
		exec socat "TCP-LISTEN:$1,bind=127.0.0.1,reuseaddr,backlog=1024,fork" \
			"EXEC:sh $0 --park,nofork"
		;;
	systemd)
		# it would tell of each connection
		SYSTEMD_LOG_LEVEL=warning exec systemd-socket-activate --accept --inetd --listen "127.0.0.1:$1" \
			--setenv "PATH=$PATH" --setenv "GROUP=$group" --setenv "IDLE=$idle" \
			--setenv "READYCTL=$readyctl" \
			${READYD_SOCKET:+--setenv "READYD_SOCKET=$READYD_SOCKET"} sh "$0" --park
		;;
	esac
}

front=
case ${1-} in
--park) park 0 ;;
--handle)
	handle
	exit
	;;
--front)
	front=${2-}
	shift 2
	;;
esac
port=${1:?usage: sh shell-server.sh [--front socat | systemd] PORT [JOBS]}
jobs=${2:-4}
if [ -z "$front" ]; then
	front=systemd
	command -v systemd-socket-activate >/dev/null || front=socat
fi

front "$port" &
acceptor=$!
# a request that does not come to its end in ten seconds ends with its handler
"$readyctl" take --group "$group" --each --jobs "$jobs" -- timeout 10 sh "$0" --handle &
take=$!
trap 'kill $acceptor $take 2>/dev/null' TERM INT
# each wait ends at a signal
wait $take
wait $take
kill $acceptor 2>/dev/null
wait $acceptor
wait $acceptor
exit 0
