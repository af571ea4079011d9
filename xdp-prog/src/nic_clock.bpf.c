/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stamps each packet with the time its NIC took, where the driver gives that, else with the kernel's, and lets the
 * capture program go on from there. The kernel allows the question only to a program bound to the interface, and lets
 * nobody call such a one: it has to be the first. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} next SEC(".maps");

extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym __weak;

static __always_inline int stamp(struct xdp_md *ctx)
{
	struct stamp *stamp;
	__u64 ns = 0;

	/* A driver may say that it can and have nothing to say: 0 is no time. */
	if (!bpf_xdp_metadata_rx_timestamp || bpf_xdp_metadata_rx_timestamp(ctx, &ns) || !ns || ns & STAMP_BY_NIC)
		ns = bpf_ktime_get_ns();
	else
		ns |= STAMP_BY_NIC;
	/* Where there is no room for it, the capture program sees that, too, and counts it. */
	if (!bpf_xdp_adjust_meta(ctx, -(int)sizeof(*stamp))) {
		stamp = (void *)(long)ctx->data_meta;
		if ((void *)(stamp + 1) <= (void *)(long)ctx->data)
			stamp->ns = ns;
	}
	bpf_tail_call(ctx, &next, 0);
	return XDP_PASS;
}

SEC("xdp")
int nic_clock(struct xdp_md *ctx)
{
	return stamp(ctx);
}

SEC("xdp.frags")
int nic_clock_jumbo(struct xdp_md *ctx)
{
	return stamp(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
