/* SPDX-License-Identifier: MIT */
#ifndef READYD_RECORD_H
#define READYD_RECORD_H

/*
 * What loop and holder say to each other, and what a park's record looks like: in their messages,
 * in a holder's memory, and in the depots of systemd's fd store. Pure: encoding and checking.
 *
 * A message is one SOCK_SEQPACKET datagram: a header and operations, one after the other, each with
 * its own number of fds; the fds of a message belong to its operations in order. Nothing that is
 * read is trusted: a holder may be of another version, and a depot is what a store gave back.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_MAGIC UINT32_C(0x52594850)

enum {
	RECORD_VERSION = 2, /* of the records and of all messages here */
	RECORD_TEXT_MAX = 255 + 255 + 2048 + 128 + 128,
	RECORD_MESSAGE_MAX = 64 * 1024,
	RECORD_FDS_MAX = 253,
};

enum record_state {
	RECORD_HELD = 0,
	RECORD_HANDED = 1,
};

/*
 * A park. Its fds, in this order: the parked one; if `maker_fd`, a pidfd of its maker's process; if
 * `worker_fd`, of its worker's. Followed by its texts: name, group, note, local, peer.
 */
struct record {
	uint8_t token[16];
	uint8_t maker[16];  /* handle; zero: none */
	uint8_t worker[16]; /* handle; zero: none */
	uint64_t number;
	uint64_t serial; /* of two records with one token the greater one counts */
	uint64_t cookie;
	int64_t parked;   /* ns, CLOCK_MONOTONIC */
	int64_t deadline; /* the same; 0: none */
	uint32_t uid;
	uint32_t flags; /* enum wire_park_flag */
	int32_t told_fd;
	int32_t maker_pid;   /* 0: none */
	int32_t worker_pid;  /* 0: none */
	uint32_t worker_uid; /* whose the worker is; 0 also: none */
	uint16_t note_length;
	uint8_t name_length;
	uint8_t group_length;
	uint8_t local_length;
	uint8_t peer_length;
	uint8_t interest;
	uint8_t kind;  /* enum wire_kind; to the loop: 0, or the holder vouches for it */
	uint8_t state; /* enum record_state */
	uint8_t answered;
	uint8_t timed_out;
	uint8_t maker_fd;  /* 0 or 1 */
	uint8_t worker_fd; /* 0 or 1 */
	uint8_t shared;    /* its group is; 0 or 1 */
	uint8_t reserved[2];
};

/*
 * The value of HOLD, CHANGE and DROP is 0; or, of a durable park, what STORED or LOST is to say again
 * when this is in the store, or out of it.
 */
enum record_op_type {
	/* to the holder */
	RECORD_HOLD = 1,      /* a record, its texts, its fds: a new park, or all of an old one */
	RECORD_CHANGE = 2,    /* a record without texts; its fds without the parked one */
	RECORD_DROP = 3,      /* struct record_drop: close it */
	RECORD_GIVE_BACK = 4, /* value: epoch. All parks come back as HOLD, then END */
	RECORD_CLOSE = 5,     /* fds: keep them until GO; value: a number; 0: never GO */
	RECORD_GO = 6,        /* close those of CLOSE `value` */
	/* to the loop */
	RECORD_END = 7,    /* value: the epoch of GIVE_BACK, which is done */
	RECORD_STORED = 8, /* struct record_drop: that change of a durable park is in the store */
	RECORD_LOST = 9,   /* struct record_drop: it cannot be stored */
	/* to the holder: it has all parks now, so what an earlier holder of this uid has stored can go;
	 * value: a number. Back from it: that is done */
	RECORD_SETTLE = 10,
	RECORD_SETTLED = 11,
};

struct record_drop {
	uint8_t token[16];
	uint64_t serial;    /* of the change, see struct record */
	uint32_t shut_down; /* 0 or 1: DROP: shut it down before closing */
	uint32_t reserved;
};

/* ---- Writing ---- */

/* A message under construction; zeroed ones are empty. The fds in it stay the caller's. */
struct record_batch {
	size_t size; /* of bytes, with the header; 0: nothing yet */
	unsigned n_fds;
	int fds[RECORD_FDS_MAX];
	uint64_t bytes[RECORD_MESSAGE_MAX / 8];
};

void record_batch_clear(struct record_batch *b);

/*
 * Adds an operation: `payload` (struct record or record_drop, or nothing), `text` behind it (HOLD),
 * and fds. -ENOBUFS: no room in this message (never for an empty one). -EINVAL.
 */
int record_batch_add(struct record_batch *b, enum record_op_type type, uint32_t value,
		     const void *payload, size_t payload_size, const void *text, size_t text_size,
		     const int *fds, unsigned n_fds);

/* Bytes of the texts of a record. */
size_t record_text_size(const struct record *r);

/*
 * Sends it. Never waits. 0. -EAGAIN: the queue is full, POLLOUT tells when it is not. -ETOOMANYREFS,
 * -ENOBUFS, -ENOMEM: the kernel has no room for its fds or bytes now, and nothing tells when: again
 * later. Another negative errno: the other end is gone.
 */
int record_batch_send(const struct record_batch *b, int socket);

/* ---- Reading ---- */

/* One operation in a received message; pointers into it. */
struct record_op {
	enum record_op_type type;
	uint32_t value;
	const struct record *record;    /* HOLD, CHANGE; checked in itself; else NULL */
	const uint8_t *text;            /* HOLD */
	const struct record_drop *drop; /* DROP, STORED, LOST */
	unsigned first_fd;              /* index among the message's fds */
	unsigned n_fds;
};

/* A received message, and its fds, which are closed by record_message_clear() unless they were
 * taken (set to -1). */
struct record_message {
	size_t size;
	size_t at;
	unsigned n_fds;
	unsigned next_fd;
	bool truncated; /* bytes or fds were lost */
	int fds[RECORD_FDS_MAX];
	uint64_t bytes[RECORD_MESSAGE_MAX / 8];
};

/* Receives one, flags as recvmsg(2)'s (MSG_PEEK, MSG_DONTWAIT). 1; 0: the end; negative errno
 * (-EAGAIN). Fds are moved to FD_LASTING and above; those that cannot be are lost. */
int record_message_receive(struct record_message *m, int socket, int flags);
void record_message_clear(struct record_message *m);

/*
 * The next operation: 1; 0: no more. -EBADMSG: not a message of this version, or damaged from here
 * on: the rest cannot be read, and the next call returns 0; *ret_reason is a static sentence. An
 * operation whose payload or record contradicts itself is told as -EINVAL, with the reason, and the
 * next call goes on behind it. Fewer fds than its operations need is told as -EINVAL of those that
 * go without.
 */
int record_message_next(struct record_message *m, struct record_op *ret, const char **ret_reason);

#endif
