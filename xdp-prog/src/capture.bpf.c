/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stamps each packet with the time it was seen and hands it to the AF_XDP socket of its receive queue. Whatever is
 * wrong with a packet is for the analysis to find, not for the kernel to drop: without a filter it looks at no byte.
 *
 * With a filter it is a chain of programs, each the tail call of the one before (enum step). The one that judges is
 * made of the expression when the capture starts and put into the map of steps by whoever loads this. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "related.h"

/* What the filter doesn't want goes to the kernel, whose packets these are. */
const volatile __u8 pass_refused;
/* What is related passes. */
const volatile __u8 relations;

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

static __always_inline int redirect(struct xdp_md *ctx, __u64 bytes, int stamped)
{
	int action;

	if (!stamped)
		count(OUTCOME_UNSTAMPED, bytes);
	action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	count(action == XDP_REDIRECT ? OUTCOME_REDIRECTED : OUTCOME_NO_SOCKET, bytes);
	return action;
}

static __always_inline int hand_over(struct xdp_md *ctx, __u64 bytes)
{
	return redirect(ctx, bytes, put_stamp(ctx));
}

/* The chain's beginning. A step that isn't there leaves the packet to the kernel. */
static __always_inline int enter(struct xdp_md *ctx, __u64 bytes)
{
	put_stamp(ctx);
	bpf_tail_call(ctx, &steps, STEP_FILTER);
	count(OUTCOME_NO_SOCKET, bytes);
	return XDP_PASS;
}

/* Wanted. The later fragments of it will be, too. */
static __always_inline int take(struct xdp_md *ctx, __u64 bytes)
{
	struct whole whole = {};
	struct found found = {};

	if (relations && find(ctx, &found, &whole) && found.first) {
		__u64 now = bpf_ktime_get_ns();

		bpf_map_update_elem(&fragmented, &whole, &now, BPF_ANY);
	}
	return redirect(ctx, bytes, ctx->data_meta + sizeof(struct stamp) <= ctx->data);
}

static __always_inline int take_related(struct xdp_md *ctx, __u64 bytes)
{
	count(OUTCOME_RELATED, bytes);
	return take(ctx, bytes);
}

static __always_inline int refuse(struct xdp_md *ctx, __u64 bytes)
{
	count(OUTCOME_FILTERED, bytes);
	if (is_tagged(ctx))
		count(OUTCOME_FILTERED_TAGGED, bytes);
	if (!pass_refused)
		return XDP_DROP;
	/* Metadata would keep the kernel from joining it with its like. */
	bpf_xdp_adjust_meta(ctx, (long)ctx->data - (long)ctx->data_meta);
	return XDP_PASS;
}

/* Not wanted for itself. */
static __always_inline int second(struct xdp_md *ctx)
{
	struct whole whole = {};
	struct found found = {};
	__u32 zero = 0, at;
	struct look *look;
	__u64 *since;

	if (!find(ctx, &found, &whole))
		goto refused;
	if (found.later) {
		since = bpf_map_lookup_elem(&fragmented, &whole);
		if (since && bpf_ktime_get_ns() - *since <= FRAGMENTS_NS)
			bpf_tail_call(ctx, &steps, STEP_RELATED);
		goto refused;
	}
	at = quoted(ctx, &found);
	look = bpf_map_lookup_elem(&looks, &zero);
	if (at && look) {
		look->from = found.l3;
		look->shift = at - found.l3;
		bpf_tail_call(ctx, &steps, STEP_QUOTED);
	}
refused:
	bpf_tail_call(ctx, &steps, STEP_REFUSE);
	return XDP_PASS;
}

/* Each program twice: for packets that fit one buffer (with this one attached, the kernel keeps larger ones off the
 * interface), and for jumbo frames, which come in several; ctx spans only the first. */
#define PROGRAM(name, function)                                             \
	SEC("xdp")                                                          \
	int name(struct xdp_md *ctx)                                        \
	{                                                                   \
		return function(ctx, ctx->data_end - ctx->data);            \
	}                                                                   \
	SEC("xdp.frags")                                                    \
	int name##_jumbo(struct xdp_md *ctx)                                \
	{                                                                   \
		return function(ctx, bpf_xdp_get_buff_len(ctx));            \
	}

PROGRAM(capture, hand_over)
PROGRAM(filtered, enter)
PROGRAM(taken, take)
PROGRAM(related, take_related)
PROGRAM(refused, refuse)

SEC("xdp")
int seconded(struct xdp_md *ctx)
{
	return second(ctx);
}

SEC("xdp.frags")
int seconded_jumbo(struct xdp_md *ctx)
{
	return second(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
