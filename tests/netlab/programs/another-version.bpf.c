/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What waylay's options might be to a program of another version: an answer of
 * another size, and an error that this version does not give. */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

static long (*const bpf_set_retval)(int retval) = (void *)BPF_FUNC_set_retval;

#define SOL_WAYLAY 0x5759
#define ENETDOWN 100

SEC("cgroup/getsockopt")
int answer(struct bpf_sockopt *ctx)
{
	volatile struct bpf_sockopt *out = ctx;

	if (ctx->level == SOL_WAYLAY) {
		out->optlen = 12;
		out->retval = 0;
	}
	return 1;
}

SEC("cgroup/setsockopt")
int refuse(struct bpf_sockopt *ctx)
{
	if (ctx->level != SOL_WAYLAY)
		return 1;
	bpf_set_retval(-ENETDOWN);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
