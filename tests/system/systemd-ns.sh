#!/bin/sh
# SPDX-License-Identifier: MIT
# Boots the machine's own systemd as PID 1 of private namespaces, and runs a command beside it.
#
#   systemd-ns.sh STAGE COMMAND [ARGUMENT]...
#
# The command sees the machine's files with those of STAGE (a folder like DESTDIR=) laid over them,
# and can write everywhere: it writes to memory. It ends with the command's exit status, or 77 if
# the machine does not let us, with the reason as the only line on stderr. Root only.
#
# Nothing of the machine changes. What makes sure of it:
#  - / is an overlay whose upper layer is a tmpfs; /dev, /run, /tmp and /var/log are empty tmpfs of
#    their own, since a booting systemd tidies up there;
#  - /proc/sys and /sys are read-only: PID 1 raises fs.file-max, and that is the machine's;
#  - the only units are those in STAGE, the journal's, and empty targets in place of those that
#    every unit depends on: none of the machine's services is started;
#  - mounts, processes and the IPC are in namespaces, which end with PID 1, which ends with us. The
#    cgroup is removed.
set -eu

give_up() {
	echo "$*" >&2
	exit 77
}

[ "$(id -u)" = 0 ] || give_up "only root can boot a systemd in namespaces"
systemd=/usr/lib/systemd/systemd
[ -x $systemd ] || systemd=/lib/systemd/systemd
[ -x $systemd ] || give_up "there is no systemd on this machine"
stage=$(readlink -f "$1")
shift

work=$(mktemp -d /tmp/readyd-systemd-XXXXXX)
cgroup='' mounted='' boot='' run=''

# shellcheck disable=SC2317
clean_up() {
	trap - EXIT INT TERM
	cd /
	[ -z "$boot" ] || kill -KILL "$boot" 2>/dev/null || :
	[ -z "$run" ] || kill -KILL "$run" 2>/dev/null || :
	wait 2>/dev/null || :
	# a process that was killed may take a moment to leave its cgroup
	tries=0
	while [ -n "$cgroup" ] && [ -d "$cgroup" ] && [ "$tries" -lt 100 ]; do
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.05
		tries=$((tries + 1))
	done
	# one of the first version, should the command have been killed while it had one
	rmdir /sys/fs/cgroup/memory/readyd-systemd-* 2>/dev/null || :
	[ -z "$mounted" ] || umount "$work/cgroup"
	rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A cgroup of our own in the second version's tree, wherever that is.
for tree in /sys/fs/cgroup/unified /sys/fs/cgroup; do
	if [ -e $tree/cgroup.controllers ] && mkdir "$tree/readyd-systemd.$$" 2>/dev/null; then
		cgroup=$tree/readyd-systemd.$$
		break
	fi
done
if [ -z "$cgroup" ]; then
	mkdir "$work/cgroup"
	mount -t cgroup2 cgroup2 "$work/cgroup" 2>/dev/null || give_up "no cgroup2 can be mounted"
	mounted=yes
	mkdir "$work/cgroup/readyd-systemd.$$" 2>/dev/null || give_up "no cgroup can be made"
	cgroup=$work/cgroup/readyd-systemd.$$
fi

# What PID 1 does before it is systemd.
cat >"$work/boot" <<'BOOT'
set -eu
work=$1 stage=$2 systemd=$3
mount -t tmpfs -o mode=755 tmpfs "$work"
root=$work/root
mkdir "$work/upper" "$work/scratch" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" overlay "$root"
cp -a "$stage"/* "$root/" # not the folder itself: / would get its mode
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in dev run var/log; do
	mount -t tmpfs -o mode=755 tmpfs "$root/$folder"
done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mknod -m 666 "$root/dev/null" c 1 3
mknod -m 666 "$root/dev/zero" c 1 5
mknod -m 666 "$root/dev/full" c 1 7
mknod -m 666 "$root/dev/random" c 1 8
mknod -m 666 "$root/dev/urandom" c 1 9
mknod -m 666 "$root/dev/tty" c 5 0
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

units=$root/run/units
mkdir -p "$units" "$root/run/lock" "$root/run/systemd/journald.conf.d"
find "$stage" -path '*/systemd/system/*' -type f -exec cp {} "$units/" \;
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
	cp "${systemd%/systemd}/system/$unit" "$units/"
done
printf '[Journal]\nReadKMsg=no\nStorage=volatile\nRateLimitBurst=0\n' \
	>"$root/run/systemd/journald.conf.d/test.conf"
for target in sysinit basic sockets shutdown umount timers paths slices; do
	printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
printf '[Unit]\nDefaultDependencies=no\nWants=%s\nAfter=%s\n' \
	systemd-journald.service systemd-journald.service >"$units/test.target"
exec env -i PATH="$PATH" LANG=C.UTF-8 container=readyd-test SYSTEMD_UNIT_PATH=/run/units \
	SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent \
	chroot "$root" "$systemd" --system --show-status=0 --log-target=journal --dump-core=0 \
	--crash-reboot=0 --unit=test.target
BOOT

# Into the cgroup first: the cgroup namespace begins where its first process is.
sh -c 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"' sh "$cgroup" \
	unshare --pid --fork --kill-child=KILL --mount --propagation private --cgroup --ipc --uts \
	sh "$work/boot" "$work" "$stage" $systemd >"$work/log" 2>&1 &
boot=$!

init='' tries=0
until [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] &&
	[ "$(cat "/proc/$init/comm")" = systemd ]; do
	if ! kill -0 $boot 2>/dev/null || [ "$tries" -gt 1200 ]; then
		give_up "systemd does not boot here: $(tail -n 1 "$work/log")"
	fi
	sleep 0.05
	tries=$((tries + 1))
	init=$(tr -d ' ' <"/proc/$boot/task/$boot/children" 2>/dev/null) || init=''
done

# In the background, so that our traps run at once; with a session of its own, so that a signal to
# its process group is not for us.
cd /
# shellcheck disable=SC2016
setsid -w nsenter -t "$init" --mount --pid --cgroup --ipc --uts --root --wdns=/ \
	env -i PATH="$PATH" LANG=C.UTF-8 SYSTEMD_UNIT_PATH=/run/units sh -c '
		cd /
		n=0
		until systemctl is-active -q test.target; do
			n=$((n + 1))
			[ $n -lt 600 ] || exit 1
			sleep 0.1
		done
		exec "$@"' sh "$@" </dev/null &
run=$!
status=0
wait $run || status=$?
run=''
exit $status
