/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The programs' pure headers, compiled for user space. */
#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

#include "../../../crates/engine-ebpf/bpf/abi.h"
#include "../../../crates/engine-ebpf/bpf/siphash.h"
#include "../../../crates/engine-ebpf/bpf/handle.h"
#define WL_GLOBAL static
#include "../../../crates/engine-ebpf/bpf/classify.h"
#include "../../../crates/engine-ebpf/bpf/unredirectable.h"
#include "../../../crates/engine-ebpf/bpf/marks.h"

void waylay_test_siphash(__u64 k0, __u64 k1, const __u64 *words, __u64 *tag)
{
	wl_siphash128(k0, k1, words, tag);
}

int waylay_test_judge_handle(const struct wl_key *key, const struct wl_handle *handle)
{
	return wl_judge_handle(key, handle);
}

int waylay_test_classify_redirect(const struct wl_tables *t, const struct wl_leg *leg, __u64 skip)
{
	return wl_classify_redirect(t, leg, skip);
}

int waylay_test_classify_auth(const struct wl_tables *t, const struct wl_leg *leg)
{
	return wl_classify_auth(t, leg);
}

__u32 waylay_test_judge_socket(const struct wl_tables *t, __u32 family, __u32 type, __u32 protocol,
			       const struct wl_leg *leg, int foreign)
{
	struct wl_socket s = { .family = family, .type = type, .protocol = protocol };

	return wl_judge_socket(t, &s, leg, foreign);
}

int waylay_test_is_group(const __u8 *ip)
{
	return wl_is_group(ip);
}

int waylay_test_recognises(const struct wl_service *s, const struct wl_process *p, __u64 ancestor)
{
	return wl_recognises(s, p, ancestor);
}

size_t waylay_test_leg_size(void)
{
	return sizeof(struct wl_leg);
}
