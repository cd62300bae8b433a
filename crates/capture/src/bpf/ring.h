/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ring and the other maps: reserving a place, committing a record, ending data mode.
 */
#pragma once

#include "kernel.h"
#include "shared.h"

#include <stdbool.h>
#include <stddef.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile typeof(x) *)&(x) = (v))

#define TRIES_MAX 64
#define STEPS_MAX (1U << 20)
#define BIOS_MAX (1U << 16)
#define PAGE_BYTES 4096
#define NO_TARGET 0xffffffffU
#define NO_PLACE 0xffffffffffffffffULL

struct segment {
	__u8 bytes[SEGMENT_VALUE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* the loader sets it */
	__type(key, __u32);
	__type(value, struct segment);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FLIGHTS_MAX);
	__type(key, __u64);
	__type(value, struct flight);
} flights SEC(".maps");

/* Carries no data: it wakes a loader that sleeps. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wake SEC(".maps");

/*
 * State of one copy. In a map rather than on the stack: what is loaded from a map is unknown to the
 * verifier, so the loop below converges on every kernel. on_queue can't interrupt itself on a
 * processor (the kernel then skips it, which on_missed sees), so one per processor is enough.
 */
struct job {
	__u64 vectors;		/* address of the next struct bio_vec */
	__u64 source;		/* address of the next byte */
	__u64 position;		/* of the record being filled */
	__u64 offset;		/* on the disk, of that record */
	__u32 vector_left;	/* bytes left in the current vector */
	__u32 vector_skip;	/* bytes of the first vector that are not part of the bio */
	__u32 left;		/* bytes left of the bio, the record's included */
	__u32 record_bytes;
	__u32 record_done;
	__u32 target;
	__u32 bad;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct job);
} jobs SEC(".maps");

extern const void page_offset_base __ksym __weak;
extern const void vmemmap_base __ksym __weak;

static const __u32 zero;

static __always_inline struct control *get_control(void)
{
	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline void wake_loader(struct control *ctl)
{
	__u64 token = 1;

	if (READ_ONCE(ctl->waiting) && __sync_lock_test_and_set(&ctl->waiting, 0))
		bpf_ringbuf_output(&wake, &token, sizeof(token), BPF_RB_FORCE_WAKEUP);
}

/*
 * Ends data mode. What lies before `position` stays a consistent prefix; the first one to come says
 * where.
 */
static __always_inline void lose(struct control *ctl, __u64 reason, __u32 target, __u64 position)
{
	__u64 lost = reason << 58 | (__u64)(target & 63) << 52 | (position >> 3 & ((1ULL << 52) - 1));

	__sync_val_compare_and_swap(&ctl->lost, 0, lost);
	WRITE_ONCE(ctl->mode, MODE_LOST);
	wake_loader(ctl);
}

/*
 * The two functions with loops are global on purpose: the verifier then looks at each once, and not
 * again for every way on from every round. They take and give numbers only.
 */

/* Number *and* disk sequence: after detach and attach the number names another disk (trap T-8). */
__attribute__((noinline)) __u32 find_disk(__u32 major, __u32 minor, __u64 diskseq)
{
	struct control *ctl = get_control();
	__u32 i;

	if (!ctl)
		return NO_TARGET;
	for (i = 0; i < TARGETS_MAX && i < ctl->targets_count; i++) {
		struct target *target = &ctl->targets[i];

		if (target->major != major || target->first_minor != minor)
			continue;
		if (target->diskseq == diskseq)
			return i;
		WRITE_ONCE(ctl->counters[i].replaced, 1);
	}
	return NO_TARGET;
}

/* Reserves `bytes` of the ring and gives the position, or NO_PLACE. */
__attribute__((noinline)) __u64 reserve(__u64 bytes, __u32 target)
{
	struct control *ctl = get_control();
	__u64 head = 0;
	int i;

	if (!ctl)
		return NO_PLACE;
	for (i = 0; i < TRIES_MAX; i++) {
		head = READ_ONCE(ctl->head);
		if (head + bytes - READ_ONCE(ctl->tail) > ctl->ring_bytes) {
			lose(ctl, LOST_OVERFLOW, target, head);
			return NO_PLACE;
		}
		if (__sync_val_compare_and_swap(&ctl->head, head, head + bytes) == head)
			return head;
	}
	lose(ctl, LOST_CONTENDED, target, head);
	return NO_PLACE;
}

static __always_inline __u32 find_target(struct bio *bio)
{
	struct block_device *device = bio->bi_bdev;
	struct gendisk *disk;

	if (!device)
		return NO_TARGET;
	disk = device->bd_disk;
	return find_disk(disk->major, disk->first_minor, disk->diskseq);
}

static __always_inline void *segment_at(struct control *ctl, __u64 position)
{
	__u64 segments = ctl->segments;
	__u32 index;

	if (!segments)
		return NULL;
	index = (position >> SEGMENT_SHIFT) % segments;
	return bpf_map_lookup_elem(&ring, &index);
}

/* Fills in the header; the commit word last, so that the loader never sees half a record. */
static __always_inline void commit(struct control *ctl, __u64 position, __u8 kind, __u16 target,
				   __u64 offset, __u64 length, __u32 data_bytes)
{
	void *segment = segment_at(ctl, position);
	struct record *record;

	if (!segment)
		return;
	record = segment + (position & (SEGMENT_BYTES - 8));
	record->offset = offset;
	record->length = length;
	record->time_ns = bpf_ktime_get_ns();
	record->data_bytes = data_bytes;
	record->target = target;
	record->kind = kind;
	record->unused0 = 0;
	record->unused1 = 0;
	/* An exchange is a full barrier: whoever sees this word sees all that was written before. */
	__sync_lock_test_and_set(&record->commit, (position + 1) ^ ctl->key);
	wake_loader(ctl);
}

static __always_inline void put(struct control *ctl, __u8 kind, __u32 target, __u64 offset,
				__u64 length)
{
	__u64 position = reserve(sizeof(struct record), target);

	if (position != NO_PLACE)
		commit(ctl, position, kind, target, offset, length, 0);
}
