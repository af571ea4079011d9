/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Makes load for tests and benchmarks: run by BPF_PROG_TEST_RUN on live frames, it gives each copy of a template
 * (Ethernet, IPv4, UDP or TCP, no options) the ports of the next flow and sends it out of an interface. */
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

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct udphdr *ports = (void *)(ip + 1);
	__u32 flow = next_flow++ % flows;

	if ((void *)(ports + 1) > end)
		return XDP_ABORTED;
	/* What is added to the address is taken from the id, so that the header's checksum stays right. */
	ports->source = bpf_htons(1024 + (flow & 0x3fff));
	ip->saddr = bpf_htonl(0x0a010000 + (flow >> 14));
	ip->id = bpf_htons(0x4000 - (flow >> 14));
	return bpf_redirect(out_ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
