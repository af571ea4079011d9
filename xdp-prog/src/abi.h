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
	OUTCOMES,
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
