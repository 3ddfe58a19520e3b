/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Whether a handle is one that this instance gave out, untouched. Pure, so it is
 * also compiled for user space, where it is given handles of any content.
 */
#pragma once

enum wl_handle_verdict {
	WL_HANDLE_GENUINE = 0,
	WL_HANDLE_MALFORMED,
	WL_HANDLE_OF_ANOTHER_INSTANCE,
	WL_HANDLE_ALTERED,
};

static inline __attribute__((always_inline)) enum wl_handle_verdict
wl_judge_handle(const struct wl_key *key, const struct wl_handle *handle)
{
	__u64 tag[2];

	if (handle->version != WL_ABI_VERSION || handle->size != sizeof(*handle))
		return WL_HANDLE_MALFORMED;
	if (handle->boot != key->boot || handle->instance != key->instance)
		return WL_HANDLE_OF_ANOTHER_INSTANCE;
	wl_siphash128(key->k0, key->k1, (const __u64 *)handle, tag);
	return (tag[0] ^ handle->tag[0]) | (tag[1] ^ handle->tag[1]) ? WL_HANDLE_ALTERED : WL_HANDLE_GENUINE;
}
