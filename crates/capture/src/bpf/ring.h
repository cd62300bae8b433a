/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Control words and the ring: reserving a place, committing a record, ending data mode.
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

/* One line per target and processor: counting there never waits for another processor. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, TARGETS_MAX); /* the loader multiplies it by the processors */
	__type(key, __u32);
	__type(value, struct counters);
} counts SEC(".maps");

/* Carries no data: it wakes a loader that sleeps. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wake SEC(".maps");

static const __u32 zero;

static __always_inline struct control *get_control(void)
{
	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline struct target *get_target(struct control *ctl, __u32 target)
{
	__u64 index = target;

	/* The compiler may know that it is small enough; the verifier must see it. */
	asm volatile("%0 &= %1" : "+r"(index) : "i"(TARGETS_MAX - 1));
	return &ctl->targets[index];
}

#define COUNT(target_, field_, n_)                                                             \
	({                                                                                     \
		__u32 at_ = bpf_get_smp_processor_id() * TARGETS_MAX +                         \
			    ((target_) & (TARGETS_MAX - 1));                                   \
		struct counters *counters_ = bpf_map_lookup_elem(&counts, &at_);               \
		if (counters_)                                                                 \
			__sync_fetch_and_add(&counters_->field_, (n_));                        \
	})

static __always_inline void wake_loader(struct control *ctl, __u64 head)
{
	__u64 token = 1, wake_at = READ_ONCE(ctl->wake_at);

	if (wake_at && head >= wake_at && __sync_lock_test_and_set(&ctl->wake_at, 0))
		bpf_ringbuf_output(&wake, &token, sizeof(token), BPF_RB_FORCE_WAKEUP);
}

/*
 * Ends data mode of a target. What lies before `position` stays a consistent prefix; the first one
 * to come says where.
 */
static __always_inline void lose(struct control *ctl, __u64 reason, __u32 target, __u64 position)
{
	struct target *disk = get_target(ctl, target);

	if (READ_ONCE(disk->mode) != MODE_DATA)
		return;
	__sync_val_compare_and_swap(&disk->lost, 0,
				    reason << 58 | (position >> 3 & ((1ULL << 58) - 1)));
	WRITE_ONCE(disk->mode, MODE_BITMAP);
	wake_loader(ctl, NO_PLACE);
}

/*
 * The functions with loops are global on purpose: the verifier then looks at each once, and not
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
			return READ_ONCE(target->mode) == MODE_OFF ? NO_TARGET : i;
		COUNT(i, replaced, 1);
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
	wake_loader(ctl, READ_ONCE(ctl->head));
}

static __always_inline void put(struct control *ctl, __u8 kind, __u32 target, __u64 offset,
				__u64 length)
{
	__u64 position = reserve(sizeof(struct record), target);

	if (position != NO_PLACE)
		commit(ctl, position, kind, target, offset, length, 0);
}
