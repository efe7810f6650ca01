/* SPDX-License-Identifier: MIT */
#include "upgrade_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/poller/fd.h"
#include "daemon/util/cleanup.h"

/*
 * A head of fixed size, then the fds, then the configuration's text; the head says how long all of
 * it is. Writer and reader are mostly of different builds, so the layout is written down here in
 * types of fixed width, apart from the structs that the keeper works with, and its size is
 * asserted: whoever changes it has to change UPGRADE_STATE_VERSION too.
 *
 * One form for one state: what has no meaning is zero, and a reader refuses what is not.
 */

#define MAGIC UINT64_C(0x6574617473647972) /* "rydstate" */

enum { ADDRESS_SIZE = 120 };

struct head {
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* of head, fds and text */
	char program[UPGRADE_VERSION_SIZE];
	int32_t keeper;
	uint32_t records;
	uint32_t left_behind;
	int32_t starter;
	int64_t died;
	uint64_t device;
	uint64_t inode;
	char address[ADDRESS_SIZE];
	int32_t listener;
	uint8_t bound;
	uint8_t suspects;
	uint8_t has_text;
	uint8_t reserved;
	uint32_t step_kind;
	uint32_t step_uid;
	int32_t step_pid;
	uint32_t n_kept_out;
	uint64_t step_object;
	uint64_t step_start;
	uint32_t n_fds;
	uint32_t text_size;
	int64_t began;
	uint64_t loops;
};

struct kept_out_place {
	uint32_t uid;
	int32_t pid;
	uint64_t start;
	int64_t until;
};

struct fd_place {
	uint32_t kind;
	uint32_t uid;
	int32_t pid;
	int32_t fd;
};

struct image {
	struct head head;
	struct kept_out_place kept_out[KEPT_OUT_MAX];
};

_Static_assert(sizeof(struct head) == 272, "the layout of version 2");
_Static_assert(sizeof(struct image) == 272 + 16 * 24 && sizeof(struct fd_place) == 16,
	       "the layout of version 2");
_Static_assert(sizeof(((struct listener *)NULL)->address) <= ADDRESS_SIZE, "an address has room");

/* ---- Writing ---- */

static void put_blame(const struct blame *b, struct image *to)
{
	struct head *h = &to->head;

	h->suspects = b->suspects;
	if (b->suspects) {
		h->step_kind = (uint32_t)b->step.kind;
		h->step_uid = b->step.uid;
		h->step_pid = b->step.pid;
		h->step_object = b->step.object;
		h->step_start = b->start;
	}
	h->n_kept_out = b->kept_out.n;
	for (unsigned i = 0; i < b->kept_out.n; i++) {
		const struct kept_out *k = &b->kept_out.items[i];

		to->kept_out[i] = (struct kept_out_place){
			.uid = k->uid, .pid = k->pid, .start = k->start, .until = k->until};
	}
}

static void put(const struct upgrade_state *s, size_t size, struct image *to)
{
	*to = (struct image){0};
	to->head = (struct head){
		.magic = MAGIC,
		.version = UPGRADE_STATE_VERSION,
		.size = (uint32_t)size,
		.keeper = s->keeper,
		.records = s->records,
		.left_behind = s->left_behind,
		.starter = s->starter,
		.died = s->died,
		.listener = s->listener.fd,
		.bound = s->listener.bound,
		.device = s->listener.bound ? s->listener.device : 0,
		.inode = s->listener.bound ? s->listener.inode : 0,
		.has_text = s->text != NULL,
		.n_fds = (uint32_t)s->n_fds,
		.text_size = s->text ? (uint32_t)s->text_size : 0,
		.began = s->began,
		.loops = s->loops,
	};
	memcpy(to->head.program, s->version, strnlen(s->version, UPGRADE_VERSION_SIZE - 1));
	memcpy(to->head.address, s->listener.address,
	       strnlen(s->listener.address, sizeof(s->listener.address) - 1));
	put_blame(&s->blame, to);
}

int upgrade_state_encode(const struct upgrade_state *state, void **ret, size_t *ret_size)
{
	size_t text_size = state->text ? state->text_size : 0, size;
	struct image image;
	uint8_t *bytes;

	if (state->n_fds > UPGRADE_FDS_MAX || text_size > UPGRADE_TEXT_MAX)
		return -E2BIG;
	size = sizeof(image) + state->n_fds * sizeof(struct fd_place) + text_size;
	bytes = malloc(size);
	if (!bytes)
		return -ENOMEM;
	put(state, size, &image);
	memcpy(bytes, &image, sizeof(image));
	for (size_t i = 0; i < state->n_fds; i++) {
		const struct upgrade_fd *f = &state->fds[i];
		struct fd_place place = {
			.kind = f->kind, .uid = f->uid, .pid = f->pid, .fd = f->fd};

		memcpy(bytes + sizeof(image) + i * sizeof(place), &place, sizeof(place));
	}
	if (text_size > 0)
		memcpy(bytes + size - text_size, state->text, text_size);
	*ret = bytes;
	*ret_size = size;
	return 0;
}

/* ---- Reading ---- */

static const char *check_size(const struct head *h, size_t size)
{
	if (h->n_fds > UPGRADE_FDS_MAX || h->text_size > UPGRADE_TEXT_MAX)
		return "it has too much";
	if (h->size != size ||
	    size != sizeof(struct image) + h->n_fds * sizeof(struct fd_place) + h->text_size)
		return "its size is wrong";
	if (h->has_text > 1 || (h->has_text == 0) != (h->text_size == 0))
		return "its configuration's size is wrong";
	return NULL;
}

static bool is_text(const char *text, size_t size)
{
	size_t n = strnlen(text, size);

	if (n == 0 || n == size)
		return false;
	for (size_t i = n; i < size; i++)
		if (text[i])
			return false;
	return true;
}

static const char *check_head(const struct head *h)
{
	if (!is_text(h->program, sizeof(h->program)))
		return "the version of its writer is none";
	if (h->keeper <= 0 || h->began < 0 || h->died < 0 || h->reserved != 0)
		return "a value makes no sense";
	if (h->listener < FD_LASTING || (h->starter != -1 && h->starter < FD_LASTING) ||
	    h->starter == h->listener)
		return "an fd's number makes no sense";
	if (!is_text(h->address, sizeof(h->address)) ||
	    strlen(h->address) >= sizeof(((struct listener *)NULL)->address) ||
	    (h->address[0] != '/' && h->address[0] != '@'))
		return "the socket's address is none";
	if (h->bound > (h->address[0] == '/') || (!h->bound && (h->device || h->inode)))
		return "what it says of the socket's file makes no sense";
	return NULL;
}

static const char *check_blame(const struct image *image)
{
	static const struct kept_out_place empty;
	const struct head *h = &image->head;

	if (h->suspects > 1 || h->n_kept_out > KEPT_OUT_MAX)
		return "whom it blames makes no sense";
	if (h->suspects &&
	    (h->step_kind == PROGRESS_NONE || h->step_kind >= PROGRESS_MAX || h->step_pid <= 0))
		return "whom it blames makes no sense";
	if (!h->suspects &&
	    (h->step_kind || h->step_uid || h->step_pid || h->step_object || h->step_start))
		return "whom it blames makes no sense";
	for (unsigned i = 0; i < KEPT_OUT_MAX; i++) {
		const struct kept_out_place *p = &image->kept_out[i];

		if (i < h->n_kept_out ? p->pid <= 0 || p->until <= 0
				      : memcmp(p, &empty, sizeof(empty)) != 0)
			return "whom it keeps out makes no sense";
	}
	return NULL;
}

static int compare_numbers(const void *left, const void *right)
{
	const int a = *(const int *)left, b = *(const int *)right;

	return (a > b) - (a < b);
}

/* Each number is one fd, which has one owner. */
static int check_fds(const struct upgrade_state *s, const char **ret_reason)
{
	CLEANUP_MEMORY int *numbers = calloc(s->n_fds + 2, sizeof(*numbers));
	size_t n = 0;

	if (!numbers)
		return -ENOMEM;
	numbers[n++] = s->listener.fd;
	numbers[n++] = s->starter;
	for (size_t i = 0; i < s->n_fds; i++) {
		const struct upgrade_fd *f = &s->fds[i];

		if (f->pid < 0 || (f->fd < FD_LASTING && (f->fd != -1 || f->pid == 0)))
			goto wrong;
		if (f->fd >= 0)
			numbers[n++] = f->fd;
	}
	qsort(numbers, n, sizeof(*numbers), compare_numbers);
	for (size_t i = 1; i < n; i++)
		if (numbers[i] == numbers[i - 1])
			goto wrong;
	return 0;
wrong:
	*ret_reason = "an fd's number makes no sense";
	return -EBADMSG;
}

static void get_blame(const struct image *from, struct blame *ret)
{
	const struct head *h = &from->head;

	ret->suspects = h->suspects;
	ret->step = (struct progress_step){
		.kind = (enum progress_kind)h->step_kind,
		.uid = h->step_uid,
		.pid = h->step_pid,
		.object = h->step_object,
	};
	ret->start = h->step_start;
	ret->kept_out.n = h->n_kept_out;
	for (unsigned i = 0; i < h->n_kept_out; i++) {
		const struct kept_out_place *p = &from->kept_out[i];

		ret->kept_out.items[i] = (struct kept_out){
			.uid = p->uid, .pid = p->pid, .start = p->start, .until = p->until};
	}
}

static void get(const struct image *from, struct upgrade_state *ret)
{
	const struct head *h = &from->head;

	*ret = (struct upgrade_state){
		.keeper = h->keeper,
		.records = h->records,
		.left_behind = h->left_behind,
		.began = h->began,
		.loops = h->loops,
		.died = h->died,
		.starter = h->starter,
		.listener = {.fd = h->listener,
			     .bound = h->bound,
			     .device = h->device,
			     .inode = h->inode},
	};
	memcpy(ret->version, h->program, sizeof(ret->version));
	memcpy(ret->listener.address, h->address, sizeof(ret->listener.address));
	get_blame(from, &ret->blame);
}

/* What follows the head. */
static int get_rest(const struct head *h, const uint8_t *bytes, struct upgrade_state *ret)
{
	ret->fds = calloc((size_t)h->n_fds + 1, sizeof(*ret->fds));
	if (h->has_text)
		ret->text = malloc(h->text_size);
	if (!ret->fds || (h->has_text && !ret->text))
		return -ENOMEM;
	for (; ret->n_fds < h->n_fds; ret->n_fds++) {
		struct fd_place place;

		memcpy(&place, bytes, sizeof(place));
		bytes += sizeof(place);
		ret->fds[ret->n_fds] = (struct upgrade_fd){
			.kind = place.kind, .uid = place.uid, .pid = place.pid, .fd = place.fd};
	}
	if (h->has_text)
		memcpy(ret->text, bytes, h->text_size);
	ret->text_size = h->text_size;
	return 0;
}

int upgrade_state_decode(const void *bytes, size_t size, struct upgrade_state *ret,
			 const char **ret_reason)
{
	struct upgrade_state state;
	struct image image;
	int r;

	*ret_reason = "it is too short";
	if (size < sizeof(image))
		return -EBADMSG;
	memcpy(&image, bytes, sizeof(image));
	*ret_reason = "this is no state of readyd's";
	if (image.head.magic != MAGIC)
		return -EBADMSG;
	*ret_reason = "it is of another version";
	if (image.head.version != UPGRADE_STATE_VERSION)
		return -EBADMSG;
	*ret_reason = check_size(&image.head, size);
	if (!*ret_reason)
		*ret_reason = check_head(&image.head);
	if (!*ret_reason)
		*ret_reason = check_blame(&image);
	if (*ret_reason)
		return -EBADMSG;
	get(&image, &state);
	r = get_rest(&image.head, (const uint8_t *)bytes + sizeof(image), &state);
	if (r == 0)
		r = check_fds(&state, ret_reason);
	if (r < 0) {
		upgrade_state_clear(&state);
		return r;
	}
	*ret = state;
	return 0;
}

void upgrade_state_clear(struct upgrade_state *state)
{
	free(state->fds);
	free(state->text);
	*state = (struct upgrade_state){.starter = -1, .listener = {.fd = -1}};
}
