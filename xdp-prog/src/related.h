/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What belongs to a wanted packet though a filter doesn't name it: later fragments, which have no ports, and ICMP
 * errors, which come from others and quote it. dataplane's filter/related.rs decides the same for packets of files. */
#ifndef REFEREE_RELATED_H
#define REFEREE_RELATED_H

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_QINQ 0x88a8
#define ETHERTYPE_QINQ_OLD 0x9100

#define HOP_BY_HOP 0
#define ICMP 1
#define ROUTING 43
#define FRAGMENT 44
#define ICMPV6 58
#define DESTINATION 60

/* Extension headers before what an IPv6 packet is about, at most. */
#define EXTENSIONS 4
/* Later fragments come within this of the first, ns. RFC 8200 gives a receiver as long. */
#define FRAGMENTS_NS (60ULL * 1000000000)

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 len;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 proto;
	__be16 check;
	__u32 src;
	__u32 dst;
};

struct ipv6 {
	__be32 flow;
	__be16 len;
	__u8 next;
	__u8 hops;
	__u32 src[4];
	__u32 dst[4];
};

struct ipv6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* What of a packet matters here. */
struct found {
	/* Where its IP header is, and what it carries. */
	__u32 l3;
	__u32 l4;
	__u8 proto;
	__u8 v6;
	/* It is a fragment: the first, or a later one. */
	__u8 first;
	__u8 later;
};

static __always_inline int is_tag(__be16 type)
{
	return type == bpf_htons(ETHERTYPE_VLAN) || type == bpf_htons(ETHERTYPE_QINQ) ||
	       type == bpf_htons(ETHERTYPE_QINQ_OLD);
}

/* The first tag, that is whether the frame has one. */
static __always_inline int is_tagged(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;

	if (data + 14 > (__u8 *)(long)ctx->data_end)
		return 0;
	return is_tag(*(__be16 *)(data + 12));
}

/* Where the IP header is, behind two tags at most; its ethertype in `type`. 0 if there is none. */
static __always_inline __u32 ip_offset(struct xdp_md *ctx, __be16 *type)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 22 > end)
		return 0;
	*type = *(__be16 *)(data + 12);
	if (!is_tag(*type))
		return 14;
	*type = *(__be16 *)(data + 16);
	if (!is_tag(*type))
		return 18;
	*type = *(__be16 *)(data + 20);
	return 22;
}

/* Of IPv4. `whole` is that of a fragment. */
static __always_inline int find_ipv4(struct xdp_md *ctx, struct found *found, struct whole *whole)
{
	struct ipv4 *ip = (void *)(long)ctx->data + found->l3;
	__u32 length;
	__u16 fragment;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end)
		return 0;
	length = (ip->version_ihl & 15) * 4;
	if (ip->version_ihl >> 4 != 4 || length < sizeof(*ip))
		return 0;
	fragment = bpf_ntohs(ip->fragment);
	found->proto = ip->proto;
	found->l4 = found->l3 + length;
	found->later = (fragment & 0x1fff) != 0;
	found->first = fragment & 0x2000 && !found->later;
	if (found->first || found->later) {
		whole->src[0] = ip->src;
		whole->dst[0] = ip->dst;
		whole->id = bpf_ntohs(ip->id);
		whole->proto = ip->proto;
	}
	return 1;
}

static __always_inline int find_ipv6(struct xdp_md *ctx, struct found *found, struct whole *whole)
{
	struct ipv6 *ip = (void *)(long)ctx->data + found->l3;
	struct ipv6_fragment fragment;
	__u8 extension[2];
	int i;

	if ((void *)(ip + 1) > (void *)(long)ctx->data_end || (bpf_ntohl(ip->flow) >> 28) != 6)
		return 0;
	found->proto = ip->next;
	found->l4 = found->l3 + sizeof(*ip);
#pragma unroll
	for (i = 0; i < EXTENSIONS; i++) {
		switch (found->proto) {
		case HOP_BY_HOP:
		case ROUTING:
		case DESTINATION:
			if (bpf_xdp_load_bytes(ctx, found->l4, extension, sizeof(extension)))
				return 0;
			found->proto = extension[0];
			found->l4 += (extension[1] + 1) * 8;
			break;
		case FRAGMENT:
			if (bpf_xdp_load_bytes(ctx, found->l4, &fragment, sizeof(fragment)))
				return 0;
			found->proto = fragment.next;
			found->l4 += sizeof(fragment);
			found->later = (bpf_ntohs(fragment.offset) & ~7) != 0;
			found->first = bpf_ntohs(fragment.offset) & 1 && !found->later;
			if (!found->first && !found->later)
				break;
			if (bpf_xdp_load_bytes(ctx, found->l3 + 8, whole->src, 32))
				return 0;
			whole->id = bpf_ntohl(fragment.id);
			whole->proto = 0x100 | fragment.next;
			return 1;
		default:
			return 1;
		}
	}
	return 1;
}

/* False if it is no IP packet, or a broken one. */
static __always_inline int find(struct xdp_md *ctx, struct found *found, struct whole *whole)
{
	__be16 type = 0;

	found->l3 = ip_offset(ctx, &type);
	if (!found->l3)
		return 0;
	if (type == bpf_htons(ETHERTYPE_IPV4))
		return find_ipv4(ctx, found, whole);
	found->v6 = 1;
	return type == bpf_htons(ETHERTYPE_IPV6) && find_ipv6(ctx, found, whole);
}

/* Where the packet is that an ICMP error quotes; 0 if it is none. */
static __always_inline __u32 quoted(struct xdp_md *ctx, const struct found *found)
{
	__u8 type;

	if (found->later || found->proto != (found->v6 ? ICMPV6 : ICMP))
		return 0;
	if (bpf_xdp_load_bytes(ctx, found->l4, &type, sizeof(type)))
		return 0;
	if (found->v6)
		return type >= 1 && type <= 4 ? found->l4 + 8 : 0;
	/* Unreachable, source quench, redirect, time exceeded, parameter problem. */
	if (type != 3 && type != 4 && type != 5 && type != 11 && type != 12)
		return 0;
	return found->l4 + 8;
}

#endif
