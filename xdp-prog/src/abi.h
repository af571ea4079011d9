/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the kernel's side and the program that loads it agree on. abi.rs is its mirror; its tests compare the two,
 * what maps hold through the object's BTF and the rest through this text. */
#ifndef REFEREE_ABI_H
#define REFEREE_ABI_H

/* What became of a packet that the capture program saw. */
enum outcome {
	/* Handed to the socket of its queue. Whether that took it, the socket counts. */
	OUTCOME_REDIRECTED,
	/* No socket has this queue: left to the kernel, as if nobody were capturing. */
	OUTCOME_NO_SOCKET,
	/* Besides: handed over without a time stamp, because the driver leaves no room before the packet. */
	OUTCOME_UNSTAMPED,
	/* Not wanted by the filter: dropped, or left to the kernel where the host needs its packets. */
	OUTCOME_FILTERED,
	/* Besides: of these, those with a VLAN tag, behind which a filter doesn't look unless told to. */
	OUTCOME_FILTERED_TAGGED,
	/* Besides: handed over though the filter doesn't name it, because it belongs to what the filter wants. */
	OUTCOME_RELATED,
	OUTCOMES,
};

/* The programs of the filter's chain, by their place in the map of steps. */
enum step {
	/* Made of the expression: wanted or not? Goes on with TAKE, or SECOND (REFUSE, if only the expression counts). */
	STEP_FILTER,
	/* The same of a packet that is quoted in an ICMP error. */
	STEP_QUOTED,
	/* What else could make it wanted. */
	STEP_SECOND,
	STEP_TAKE,
	STEP_RELATED,
	STEP_REFUSE,
	STEPS,
};

/* Where a quoted packet's header is: offsets from `from` on are meant `shift` bytes later. */
struct look {
	__u32 shift;
	__u32 from;
};

/* The packet that fragments were cut from. Of IPv4 addresses only the first words are used. */
struct whole {
	__u32 src[4];
	__u32 dst[4];
	__u32 id;
	__u32 proto;
};

struct tally {
	__u64 packets;
	__u64 bytes;
};

/* Set in a stamp that is by the NIC's clock, not by CLOCK_MONOTONIC. */
#define STAMP_BY_NIC (1ULL << 63)

/* Lies right before the packet's first byte. */
struct stamp {
	/* never 0 */
	__u64 ns;
};

#endif
