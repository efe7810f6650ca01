/* SPDX-License-Identifier: MIT */
#ifndef READYD_CHANNEL_H
#define READYD_CHANNEL_H

/*
 * What keeper and loop say to each other: messages of one fixed size over a socket pair
 * (SOCK_SEQPACKET), one of them with an fd. The end of the pair is the end of the other process.
 */

#include <stddef.h>
#include <stdint.h>

enum channel_type {
	CHANNEL_SETTINGS = 1, /* to the loop: a file (memfd) with a new configuration, checked */
	CHANNEL_DEFAULTS,     /* to the loop: there is no configuration file any more */
	CHANNEL_SERVING,      /* from the loop: its first turn is over */
	CHANNEL_FAILED,       /* from the loop: it cannot start; value: errno */
	CHANNEL_RELOAD,       /* from the loop: it was asked to have the configuration read anew */
	CHANNEL_UPGRADE, /* from the loop: it was asked for an upgrade; value: by which process, or
				 -1: by a signal */
	CHANNEL_TRIED,   /* to the loop: how a trial went; value: enum wire_error, 0: end now */
	CHANNEL_HOLDER,  /* from the loop: make a holder; value: the uid */
	CHANNEL_REPLACE_HOLDER, /* from the loop: the same, as the one it has is stuck */
	CHANNEL_RELEASE_HOLDER, /* from the loop: it is not needed any more; value: the uid */
	CHANNEL_HOLDER_MADE,    /* to the loop: its socket; value: the uid */
	CHANNEL_NO_HOLDER,      /* to the loop: none can be made; value: the uid */
	CHANNEL_HOLDERS_LEFT,   /* to the loop: so many stuck ones are left behind now */
};

struct channel_message {
	uint32_t type;
	int32_t value;
};

/* Two ends, lasting fds while the landing zone is plugged. Negative errno. */
int channel_new(int ret[2]);

/* Sends one; fd: -1, or a descriptor that goes with it. Never waits. Negative errno. */
int channel_send(int channel, enum channel_type type, int32_t value, int fd);

/*
 * 1: received; 0: the other end is closed; -EAGAIN: nothing there; -EBADMSG: it was none of ours.
 * A descriptor that came with it is *ret_fd, else -1; with ret_fd NULL none is let in.
 */
int channel_receive(int channel, struct channel_message *ret, int *ret_fd);

/* A text as a descriptor that can be sent, and back. The caller frees it. Negative errno. */
int channel_text_to_fd(const char *text, size_t size);
int channel_text_from_fd(int fd, char **ret, size_t *ret_size);

#endif
