/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Makes load for tests and benchmarks: run by BPF_PROG_TEST_RUN on live frames, it gives each copy of a template
 * (Ethernet, IPv4 without options, UDP or TCP) the source of the next flow. `flood` then sends it out of an
 * interface; the others hand it to another program, as if it had been received. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Set before loading. */
const volatile __u32 out_ifindex = 0;
const volatile __u32 flows = 1;

/* One CPU at a time runs this. */
__u32 next_flow = 0;

/* The program that `flood_into` hands its frames to. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(".maps");

/* False if it is no packet of that kind. What is added to an address or a port is taken from another number that
 * the same checksum covers, so that all checksums stay right: from the id for IP's, for UDP's and TCP's from the
 * word behind the ports, length and checksum, which is UDP's first payload and the upper half of TCP's ack. */
static __always_inline int give_flow(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *ports = (void *)(ip + 1);
	__be16 *balance = (void *)(ports + 1);
	__u32 flow = next_flow++ % flows, port = flow & 0x3fff, host = flow >> 14;

	if ((void *)(balance + 1) > end)
		return 0;
	ports->source = bpf_htons(1024 + port);
	ip->saddr = bpf_htonl(0x0a010000 + host);
	ip->id = bpf_htons(0x4000 - host);
	*balance = bpf_htons(0x8000 - port - host);
	return 1;
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	return give_flow(ctx) ? bpf_redirect(out_ifindex, 0) : XDP_ABORTED;
}

SEC("xdp")
int flood_into(struct xdp_md *ctx)
{
	if (give_flow(ctx))
		bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

/* Programs for jumbo frames can be called only by one of their kind. */
SEC("xdp.frags")
int flood_into_jumbo(struct xdp_md *ctx)
{
	if (give_flow(ctx))
		bpf_tail_call(ctx, &target, 0);
	return XDP_ABORTED;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
