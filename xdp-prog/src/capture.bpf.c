/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stamps each packet with the time it was seen and hands it to the AF_XDP socket of its receive queue. Looks at
 * no byte of it: whatever is wrong with a packet is for the analysis to find, not for the kernel to drop. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

static __always_inline void count(__u32 outcome, __u64 bytes)
{
	struct tally *tally = bpf_map_lookup_elem(&outcomes, &outcome);

	if (tally) {
		tally->packets++;
		tally->bytes += bytes;
	}
}

/* Writes the time into the metadata area; false where the driver has none. */
static __always_inline int put_stamp(struct xdp_md *ctx)
{
	struct stamp *stamp;

	/* By the program before this one (nic_clock.bpf.c). */
	if ((void *)(long)ctx->data_meta + sizeof(*stamp) <= (void *)(long)ctx->data)
		return 1;
	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*stamp)))
		return 0;
	stamp = (void *)(long)ctx->data_meta;
	if ((void *)(stamp + 1) > (void *)(long)ctx->data)
		return 0;
	stamp->ns = bpf_ktime_get_ns();
	return 1;
}

static __always_inline int hand_over(struct xdp_md *ctx, __u64 bytes)
{
	int action;

	if (!put_stamp(ctx))
		count(OUTCOME_UNSTAMPED, bytes);
	action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	count(action == XDP_REDIRECT ? OUTCOME_REDIRECTED : OUTCOME_NO_SOCKET, bytes);
	return action;
}

/* Packets that fit one buffer: with this one attached, the kernel keeps larger ones off the interface. */
SEC("xdp")
int capture(struct xdp_md *ctx)
{
	return hand_over(ctx, ctx->data_end - ctx->data);
}

/* Jumbo frames, which come in several buffers; ctx spans only the first. */
SEC("xdp.frags")
int capture_jumbo(struct xdp_md *ctx)
{
	return hand_over(ctx, bpf_xdp_get_buff_len(ctx));
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
