/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes between the hook and their completion, by the address of their struct bio. An array
 * instead of a hash map: no lock, one cache line for each write, and the loader sees all of it
 * without a system call.
 */
#pragma once

#include "bits.h"

#define NO_FLIGHT 0xffffffffU
#define KEY_BUSY 1ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLIGHTS);
	__type(key, __u32);
	__type(value, struct flight);
} flights SEC(".maps");

/*
 * The address as a number: the verifier computes with no pointer, and what an atomic instruction
 * has left on the stack is a number.
 */
static __always_inline __u64 key_of(const void *bio)
{
	__u64 key = 0;

	__sync_fetch_and_add(&key, (__u64)bio);
	return READ_ONCE(key);
}

/* The n-th place where a key may be. */
static __always_inline struct flight *place_of(__u64 key, __u32 n)
{
	__u32 at = (((key >> 6) * 0x9e3779b97f4a7c15ULL >> 48) + n) & (FLIGHTS - 1);

	return bpf_map_lookup_elem(&flights, &at);
}

static __always_inline struct flight *flight_of(__u64 key)
{
	__u32 n;

	if (key <= KEY_BUSY)
		return NULL;
#pragma unroll
	for (n = 0; n < FLIGHT_PLACES; n++) {
		struct flight *flight = place_of(key, n);

		if (flight && READ_ONCE(flight->key) == key)
			return flight;
	}
	return NULL;
}

/* A free place, or that of an earlier write in the same memory. */
static __always_inline struct flight *claim(__u64 key, bool *stale)
{
	__u32 n;

#pragma unroll
	for (n = 0; n < FLIGHT_PLACES; n++) {
		struct flight *flight = place_of(key, n);
		__u64 found;

		if (!flight)
			return NULL;
		found = __sync_val_compare_and_swap(&flight->key, 0, KEY_BUSY);
		*stale = found == key;
		if (!found || *stale)
			return flight;
	}
	return NULL;
}

static __always_inline void set_key(struct flight *flight, __u64 key)
{
	__sync_lock_test_and_set(&flight->key, key);
}

/*
 * Notes a write in flight. Gives 0; or a reason for which data mode can't go on: there is no place
 * for it.
 */
__attribute__((noinline)) __u32 begin_flight(__u64 bio, __u64 sector, __u32 bytes, __u32 target)
{
	struct control *ctl = get_control();
	struct flight *flight;
	bool stale = false;

	if (!ctl)
		return 0;
	flight = claim(bio, &stale);
	if (!flight) {
		__sync_fetch_and_add(&ctl->untracked, 1);
		return LOST_FLIGHTS;
	}
	if (stale) {
		/* Its end was not seen, so neither was whether it failed. */
		set_key(flight, KEY_BUSY);
		COUNT(flight->target, unended, 1);
		COUNT(flight->target, completed, 1);
		blocks_end(flight->target, flight->sector, flight->bytes);
		if (get_target(ctl, flight->target)->mode == MODE_DATA)
			put(ctl, KIND_FAILED, flight->target & (TARGETS_MAX - 1),
			    flight->sector << 9, flight->bytes);
	}
	flight->epoch = READ_ONCE(ctl->epoch);
	flight->sector = sector;
	flight->bytes = bytes;
	flight->left = bytes;
	flight->target = target;
	/* The key last, with a full barrier: whoever finds it finds the rest. */
	set_key(flight, bio);
	return 0;
}

static __always_inline void end_flight(struct flight *flight)
{
	COUNT(flight->target, completed, 1);
	blocks_end(flight->target, flight->sector, flight->bytes);
	set_key(flight, 0);
}

/*
 * The write that a bio is, or was split off: a part lies in it and names it as its parent. Writes
 * that are chained to their successor name it too, but don't lie in it.
 */
static __always_inline struct flight *parent_of(__u64 parent, __u64 sector)
{
	struct flight *flight = flight_of(parent);

	if (flight && sector >= flight->sector && sector - flight->sector <= flight->bytes >> 9)
		return flight;
	return NULL;
}
