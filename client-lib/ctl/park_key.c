/* SPDX-License-Identifier: MIT */
#include "ctl.h"
#include "text.h"

/* How take and drop name a park: by --name and --group, or by the id that `parked` shows. */

int ctl_park_key(const struct ctl *ctl, struct readyd_park_key *ret, bool *ret_used)
{
	*ret = (struct readyd_park_key){
		.size = sizeof(*ret),
		.by = READYD_BY_NAME,
		.name = ctl->name,
		.group = ctl->group,
	};
	*ret_used = !ctl->name;
	if (ctl->name)
		return CTL_DONE;
	if (ctl->given & CTL_GROUP) {
		ctl_complain("--group goes with --name: names are unique within a group");
		return CTL_USAGE;
	}
	ret->by = READYD_BY_ID;
	if (!ctl->n_arguments) {
		ctl_complain("which park? Give its id as 'readyctl parked' prints it, or --name");
		return CTL_USAGE;
	}
	if (text_parse_number(ctl->arguments[0], UINT64_MAX, &ret->park) == 0 && ret->park)
		return CTL_DONE;
	ctl_complain("'%s' is no id of a park; write the number that 'readyctl parked' prints, or "
		     "--name",
		     ctl->arguments[0]);
	return CTL_USAGE;
}
