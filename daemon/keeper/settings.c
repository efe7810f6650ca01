/* SPDX-License-Identifier: MIT */
#include "settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/util/cleanup.h"

/*
 * The text is kept beside its meaning, since it is what can be handed to a process that is running
 * already: whoever gets it reads and checks it again, so nobody has to trust a struct of another's.
 */

enum { TEXT_MAX = 1024 * 1024 }; /* config_read() refuses what is longer, with a sentence */

/* Where what is wrong with a file is told. */
struct complaints {
	struct log *log; /* NULL: stderr */
	char *first;
};

static void complain(struct complaints *to, const char *path, unsigned line, unsigned column,
		     const char *text)
{
	char place[32] = "";

	if (line)
		(void)snprintf(place, sizeof(place), ":%u:%u", line, column);
	if (to->log)
		log_error(to->log, "%s%s: %s", path, place, text);
	else
		(void)fprintf(stderr, "readyd: error: %s%s: %s\n", path, place, text);
	if (!to->first && asprintf(&to->first, "%s%s: %s", path, place, text) < 0)
		to->first = NULL;
}

static const char *path_of(const struct options *options)
{
	return options->config ? options->config : OPTIONS_CONFIG_DEFAULT;
}

/* Not what could make us wait: a FIFO, a device. */
static int open_regular(const char *path, FILE **ret)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret = fdopen(fd, "r");
	if (!*ret)
		return -errno;
	(void)steal_fd(&fd);
	return 0;
}

/* All of a file; of an empty one a newline, since not every fmemopen(3) takes nothing. */
static int read_text(const char *path, char **ret, size_t *ret_size)
{
	CLEANUP_MEMORY char *text = NULL;
	FILE *file;
	size_t size;
	int r = 0;

	r = open_regular(path, &file);
	if (r < 0)
		return r;
	text = malloc(TEXT_MAX + 1);
	if (!text) {
		(void)fclose(file);
		return -ENOMEM;
	}
	errno = 0;
	size = fread(text, 1, TEXT_MAX + 1, file);
	if (ferror(file))
		r = errno ? -errno : -EIO;
	(void)fclose(file);
	if (r < 0)
		return r;
	if (size == 0)
		text[size++] = '\n';
	*ret = realloc(text, size);
	if (!*ret)
		*ret = text;
	text = NULL;
	*ret_size = size;
	return 0;
}

/* 0, or a negative errno that was told. */
static int parse(const struct options *options, const char *text, size_t size, struct config *ret,
		 struct complaints *to)
{
	struct config_errors errors = {0};
	const char *path = path_of(options);
	struct config_hard hard;
	FILE *file;
	int r;

	config_hard_limits(&hard);
	if (!text)
		return config_defaults(&hard, ret);
	file = fmemopen((void *)(uintptr_t)text, size, "r");
	if (!file)
		return -errno;
	r = config_read(file, &hard, ret, &errors);
	(void)fclose(file);
	if (r == 0) {
		r = config_resolve(ret, &errors);
		if (r < 0)
			config_clear(ret);
	}
	for (size_t i = 0; i < errors.n; i++)
		complain(to, path, errors.items[i].line, errors.items[i].column,
			 errors.items[i].text);
	if (r < 0 && errors.n == 0)
		complain(to, path, 0, 0, strerror(-r));
	config_errors_clear(&errors);
	return r;
}

static int parse_text(const struct options *options, char *text, size_t size, struct complaints *to,
		      struct settings *ret)
{
	struct settings s = {.text = text, .size = size};
	int r = parse(options, text, size, &s.config, to);

	if (r < 0) {
		free(text);
		return r;
	}
	*ret = s;
	return 0;
}

int settings_parse(const struct options *options, char *text, size_t size, struct log *log,
		   struct settings *ret)
{
	struct complaints to = {.log = log};
	int r = parse_text(options, text, size, &to, ret);

	free(to.first);
	return r;
}

static const char *why_unreadable(int r)
{
	switch (r) {
	case -ENOENT:
		return "there is no such file";
	case -EISDIR:
		return "this is a directory; name a file";
	case -EINVAL:
		return "this is no regular file";
	default:
		return strerror(-r);
	}
}

static int load(const struct options *options, struct complaints *to, struct settings *ret)
{
	const char *path = path_of(options);
	char *text = NULL;
	size_t size = 0;
	int r;

	if (options->private_ && !options->config)
		return parse_text(options, NULL, 0, to, ret);
	r = read_text(path, &text, &size);
	if (r == -ENOENT && !options->config)
		return parse_text(options, NULL, 0, to, ret);
	if (r < 0) {
		complain(to, path, 0, 0, why_unreadable(r));
		return r;
	}
	return parse_text(options, text, size, to, ret);
}

int settings_load(const struct options *options, struct log *log, struct settings *ret,
		  char **ret_first)
{
	struct complaints to = {.log = log};
	int r = load(options, &to, ret);

	if (ret_first)
		*ret_first = STEAL(to.first);
	free(to.first);
	return r;
}

void settings_clear(struct settings *s)
{
	config_clear(&s->config);
	free(s->text);
	*s = (struct settings){0};
}

void settings_apply_level(const struct options *options, const struct config *config,
			  struct log *log)
{
	log->level = options->log_level_set ? options->log_level : config->log_level;
}
