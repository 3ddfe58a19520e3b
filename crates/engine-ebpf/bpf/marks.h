/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * By what processes of a resident are told from others. Pure, so it is also
 * compiled for user space and compared with `waylay_core::Resident` there.
 */
#pragma once

/* `ancestor` is the process's own cgroup or the one above it that is as deep as
 * the resident's; 0 if it is in none so deep. */
static inline __attribute__((always_inline)) bool wl_recognises(const struct wl_service *s,
								const struct wl_process *p, __u64 ancestor)
{
	if (!(s->flags & WL_IS_RESIDENT) || ancestor != s->resident_cgroup)
		return false;
	if (s->flags & WL_RESIDENT_BY_EXE)
		return p->exe_inode == s->resident_exe_inode && p->exe_device == s->resident_exe_device;
	return !(s->flags & WL_RESIDENT_BY_UID) || p->uid == s->resident_uid;
}
