/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One bit per block: which blocks were written, and which are being written.
 */
#pragma once

#include "ring.h"

#define WORDS_INLINE 4
#define WORDS_MAX (1U << 20)

/* Three planes: the live bits of two generations, and those that the loader has still to settle. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* the loader sets it */
	__type(key, __u32);
	__type(value, __u64);
} bits SEC(".maps");

/*
 * Sectors in flight of all targets, folded, so that the size does not depend on theirs: every 8 GiB
 * share a bit. Neighbors never do. Two writes that share bits look like an overlap, which costs a
 * read of theirs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * SKY_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} sky SEC(".maps");

/* The enum is there to ask whether the running kernel has this helper. */
enum bpf_func_id___loop {
	BPF_FUNC_loop___loop = 181,
};
#define HAS_LOOP bpf_core_enum_value_exists(enum bpf_func_id___loop, BPF_FUNC_loop___loop)

/* Blocks from `first` to `last`, whose words begin at `base`. Constant while it is walked. */
struct span {
	__u64 base;
	__u64 first;
	__u64 last;
	__u64 target;
	__u64 overlaps;		/* not 0: found on the way */
};

static __always_inline __u64 span_mask(const struct span *span, __u64 word)
{
	__u64 mask = ~0ULL;

	if (word == span->first >> 6)
		mask <<= span->first & 63;
	if (word == span->last >> 6)
		mask &= ~0ULL >> (63 - (span->last & 63));
	return mask;
}

static long mark_step(__u32 index, void *context)
{
	const struct span *span = context;
	__u64 word = (span->first >> 6) + index, mask, *bit;
	__u32 at = span->base + word;

	if (word > span->last >> 6)
		return 1;
	bit = bpf_map_lookup_elem(&bits, &at);
	if (!bit)
		return 1;
	mask = span_mask(span, word);
	/* Most are set already, and an atomic instruction takes longer than a look. */
	if ((READ_ONCE(*bit) & mask) != mask)
		__sync_fetch_and_or(bit, mask);
	return 0;
}

/*
 * Marks what is about to be written; where that is impossible the whole target is dirty. Gives 0,
 * or the reason for which data mode can't go on.
 */
__attribute__((noinline)) __u32 mark(__u32 target, __u64 offset, __u64 bytes)
{
	struct control *ctl = get_control();
	struct span span = {};
	struct target *disk;
	__u64 words;
	int i;

	if (!ctl || !bytes)
		return 0;
	disk = get_target(ctl, target);
	span.first = offset >> (disk->block_shift & 63);
	span.last = (offset + bytes - 1) >> (disk->block_shift & 63);
	if (span.last >= disk->blocks) {
		WRITE_ONCE(disk->all_dirty, LOST_GROWN);
		return LOST_GROWN;
	}
	span.base = disk->first_word + (READ_ONCE(ctl->generation) & 1) * ctl->plane_words;
	words = (span.last >> 6) - (span.first >> 6) + 1;
	if (words <= WORDS_INLINE) {
		for (i = 0; i < WORDS_INLINE; i++)
			if (mark_step(i, &span))
				break;
		return 0;
	}
	if (HAS_LOOP && words <= WORDS_MAX)
		bpf_loop(words, mark_step, &span, 0);
	else
		WRITE_ONCE(disk->all_dirty, LOST_UNMARKED);
	return 0;
}

static __always_inline __u32 sky_index(__u32 target, __u64 word)
{
	return (word + target * (SKY_WORDS / TARGETS_MAX)) & (SKY_WORDS - 1);
}

/* Notes when another write of one of these blocks is in flight; both are suspect from then on. */
static long begin_step(__u32 index, void *context)
{
	struct control *ctl = get_control();
	struct span *span = context;
	__u64 word = (span->first >> 6) + index, mask, hit, *flying, *suspect;
	__u32 at = sky_index(span->target, word), suspect_at = at + SKY_WORDS;

	if (word > span->last >> 6)
		return 1;
	flying = bpf_map_lookup_elem(&sky, &at);
	if (!flying || !ctl)
		return 1;
	mask = span_mask(span, word);
	/*
	 * The first of the two to end clears the bit while the other still flies: so a block stays
	 * suspect until the loader has seen a moment without any of them.
	 */
	hit = __sync_fetch_and_or(flying, mask) & mask;
	if (!hit && !READ_ONCE(ctl->suspicious))
		return 0;
	suspect = bpf_map_lookup_elem(&sky, &suspect_at);
	if (!suspect)
		return 1;
	hit |= READ_ONCE(*suspect) & mask;
	if (hit) {
		WRITE_ONCE(ctl->suspicious, 1);
		__sync_fetch_and_or(suspect, hit);
		span->overlaps = 1;
	}
	return 0;
}

static long end_step(__u32 index, void *context)
{
	const struct span *span = context;
	__u64 word = (span->first >> 6) + index, *flying;
	__u32 at = sky_index(span->target, word);

	if (word > span->last >> 6)
		return 1;
	flying = bpf_map_lookup_elem(&sky, &at);
	if (!flying)
		return 1;
	__sync_fetch_and_and(flying, ~span_mask(span, word));
	return 0;
}

/* Gives the number of words; 0: too many to be looked at. */
static __always_inline __u32 sky_span(struct span *span, __u32 target, __u64 sector, __u64 bytes)
{
	__u64 words;

	span->first = sector;
	span->last = sector + ((bytes - 1) >> 9);
	span->target = target;
	words = (span->last >> 6) - (span->first >> 6) + 1;
	return words <= SKY_SPAN_MAX ? words : 0;
}

/* A write begins: not 0 when another one of the same blocks is in flight (trap T-22). */
__attribute__((noinline)) __u32 blocks_begin(__u32 target, __u64 sector, __u64 bytes)
{
	struct span span = {};
	__u32 words = sky_span(&span, target, sector, bytes), i;

	if (!words)
		return 0;
	/* A constant limit: with another one 6.1's verifier follows the loop until it gives up. */
	if (words <= WORDS_INLINE) {
		for (i = 0; i < WORDS_INLINE; i++)
			if (begin_step(i, &span))
				break;
	} else if (HAS_LOOP) {
		bpf_loop(words, begin_step, &span, 0);
	}
	return span.overlaps;
}

/* A write has ended. */
__attribute__((noinline)) __u32 blocks_end(__u32 target, __u64 sector, __u64 bytes)
{
	struct span span = {};
	__u32 words = sky_span(&span, target, sector, bytes), i;

	if (!words)
		return 0;
	/* A constant limit: with another one 6.1's verifier follows the loop until it gives up. */
	if (words <= WORDS_INLINE) {
		for (i = 0; i < WORDS_INLINE; i++)
			if (end_step(i, &span))
				break;
	} else if (HAS_LOOP) {
		bpf_loop(words, end_step, &span, 0);
	}
	return 0;
}
