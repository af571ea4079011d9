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

/* The filter's chain, by enum step. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

/* From one step of the chain to the next. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct look);
} looks SEC(".maps");

/* Packets of which the first fragment was wanted, and when it came (CLOCK_MONOTONIC, ns). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct whole);
	__type(value, __u64);
} fragmented SEC(".maps");

#endif
