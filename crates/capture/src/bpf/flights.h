/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes between the hook and their completion, by the address of their struct bio. An array of
 * buckets instead of a hash map: no lock, one cache line to look, and the loader sees all of it
 * without a system call.
 */
#pragma once

#include "bits.h"

#define NO_FLIGHT 0xffffffffU
#define KEY_BUSY 1ULL

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct bucket);
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, FLIGHTS);
	__type(key, __u32);
	__type(value, struct flight);
} flights SEC(".maps");

static __always_inline __u32 bucket_of(__u64 bio)
{
	return ((bio >> 6) * 0x9e3779b97f4a7c15ULL) >> 48 & (BUCKETS - 1);
}

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

static __always_inline struct flight *flight_of(__u32 index)
{
	return bpf_map_lookup_elem(&flights, &index);
}

/* The index of a flight, or NO_FLIGHT. */
static __always_inline __u32 flight_at(__u64 bio)
{
	__u32 at = bucket_of(bio), i;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);

	if (!bucket || bio <= KEY_BUSY)
		return NO_FLIGHT;
#pragma unroll
	for (i = 0; i < BUCKET_KEYS; i++)
		if (READ_ONCE(bucket->keys[i]) == bio)
			return at * BUCKET_KEYS + i;
	return NO_FLIGHT;
}

static __always_inline void set_key(__u32 index, __u64 key)
{
	__u32 at = index / BUCKET_KEYS;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);

	if (bucket)
		__sync_lock_test_and_set(&bucket->keys[index % BUCKET_KEYS], key);
}

/* A free place for this bio, or that of an earlier write in the same memory. */
static __always_inline __u32 claim(__u64 bio, bool *stale)
{
	__u32 at = bucket_of(bio), index = flight_at(bio), i;
	struct bucket *bucket = bpf_map_lookup_elem(&buckets, &at);

	*stale = index != NO_FLIGHT;
	if (*stale || !bucket)
		return index;
#pragma unroll
	for (i = 0; i < BUCKET_KEYS; i++)
		if (!READ_ONCE(bucket->keys[i]) &&
		    !__sync_val_compare_and_swap(&bucket->keys[i], 0, KEY_BUSY))
			return at * BUCKET_KEYS + i;
	return NO_FLIGHT;
}

/*
 * Notes a write in flight. Gives 0; or a reason for which data mode can't go on: there is no place
 * for it.
 */
__attribute__((noinline)) __u32 begin_flight(__u64 bio, __u64 sector, __u32 bytes, __u32 target)
{
	struct control *ctl = get_control();
	struct flight *flight;
	__u32 index;
	bool stale;

	if (!ctl)
		return 0;
	index = claim(bio, &stale);
	flight = flight_of(index);
	if (index == NO_FLIGHT || !flight) {
		__sync_fetch_and_add(&ctl->untracked, 1);
		return LOST_FLIGHTS;
	}
	if (stale) {
		/* Its end was not seen, so neither was whether it failed. */
		set_key(index, KEY_BUSY);
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
	set_key(index, bio);
	return 0;
}

static __always_inline void end_flight(__u32 index, struct flight *flight)
{
	COUNT(flight->target, completed, 1);
	blocks_end(flight->target, flight->sector, flight->bytes);
	set_key(index, 0);
}

/* The write that this bio is, or was split off: a part lies in it and names it as its parent. */
static __always_inline __u32 find_flight(__u64 bio, __u64 sector, bool *whole)
{
	struct flight *flight;
	__u32 index = flight_at(bio);

	*whole = index != NO_FLIGHT;
	if (*whole)
		return index;
	index = flight_at((__u64)BPF_CORE_READ((struct bio *)bio, bi_private));
	flight = flight_of(index);
	/* Writes that are chained to their successor name it too, but don't lie in it. */
	if (index != NO_FLIGHT && flight && sector >= flight->sector &&
	    sector - flight->sector <= flight->bytes >> 9)
		return index;
	return NO_FLIGHT;
}
