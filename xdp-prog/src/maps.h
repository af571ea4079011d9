/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The capture program's maps. */
#ifndef REFEREE_MAPS_H
#define REFEREE_MAPS_H

#include "abi.h"

/* Receive queue -> the AF_XDP socket bound to it. A socket of another queue would get nothing: the kernel drops
 * such packets and no counter shows it (net/xdp/xsk.c, xsk_rcv_check). Sized when loaded. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Every packet the program saw, by enum outcome; each CPU counts alone. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, struct tally);
} outcomes SEC(".maps");

#endif
