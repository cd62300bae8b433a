/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the program and its loader share. The loader's view of the same bytes is in ../layout.rs; a
 * test compares the two.
 */
#pragma once

#include <linux/types.h>

/*
 * Changes with every change of what is below, or of what it means: a loader takes over pinned maps
 * only if it finds this number.
 */
#define LAYOUT 0x4c414e4446414c01ULL

#define TARGETS_MAX 32
#define EXCLUSIONS_MAX 64
#define EXCLUSIONS_PER_TARGET_MAX 8

/* A position counts bytes since the load; segment = position / SEGMENT_BYTES, modulo segments. */
#define SEGMENT_SHIFT 21
#define SEGMENT_BYTES (1ULL << SEGMENT_SHIFT)
#define RECORD_DATA_MAX (256U * 1024)
#define COPY_MAX (32U * 1024)
/*
 * A record that begins at the end of a segment goes on behind it: it never wraps. One COPY_MAX more
 * than needed, because the verifier adds up the largest offset and the largest length.
 */
#define SEGMENT_SLACK (RECORD_DATA_MAX + COPY_MAX + 8192U)
#define SEGMENT_VALUE (SEGMENT_BYTES + SEGMENT_SLACK)

/* Writes in flight: a table in which a key is at one of so many places from its hash on. */
#define FLIGHTS 16384
#define FLIGHT_PLACES 8
/* Sectors in flight, folded: two planes, "in flight" and "suspect". */
#define SKY_WORDS 262144
/* Ranges with more words than this are not checked for overlaps: they would fill the planes. */
#define SKY_SPAN_MAX 1024

enum mode {
	MODE_OFF = 0,
	MODE_DATA = 1,
	MODE_BITMAP = 2,
};

enum reason {
	LOST_OVERFLOW = 1,	/* the ring was full */
	LOST_UNREADABLE = 2,	/* a page of a write could not be read */
	LOST_MISSED = 3,	/* the hook was skipped */
	LOST_BESIDE = 4,	/* a write that the hook has not seen */
	LOST_UNKNOWN_OP = 5,	/* an operation that writes, and that is none of ours */
	LOST_FLIGHTS = 6,	/* more writes in flight than can be tracked */
	LOST_CONTENDED = 7,	/* no place in the ring after many tries */
	LOST_PASS_THROUGH = 8,	/* a command past the block layer */
	LOST_GROWN = 9,		/* beyond the bitmap */
	LOST_UNMARKED = 10,	/* a range too long to be marked */
	LOST_ENCRYPTED = 11,	/* the disk encrypts while it writes */
	/* The loader's own; see ../layout.rs. */
};

enum kind {
	KIND_WRITE = 1,
	KIND_ZERO = 2,
	KIND_DISCARD = 3,
	KIND_FAILED = 4,
	KIND_SKIP = 5,		/* nothing: a write that could not be read to its end */
	KIND_OVERLAP = 6,	/* two writes of a range were in flight at once (trap T-22) */
};

struct target {
	__u32 major;
	__u32 first_minor;
	__u64 diskseq;
	__u64 mode;
	__u64 lost;		/* 0, or reason (6 bits), position / 8 (58 bits) */
	__u64 first_word;	/* of its bits in each plane */
	__u64 blocks;		/* that have a bit */
	__u64 block_shift;
	__u64 all_dirty;	/* 0, or a reason: what was written is not known */
	__u64 suspects;		/* counts overlaps */
	__u64 excluded_first;	/* index of its first exclusion */
	__u64 excluded_count;
	/* The loader's own, kept here because it must outlive the loader. */
	__u64 pending_all;	/* as all_dirty, moved by the loader */
	__u64 baseline;
	__u64 taken;		/* the loss has been told */
	__u64 uncollected;	/* back in data mode, and its live bits were not moved yet */
	__u64 size_and_index;	/* sectors, and how the loader names it (highest 16 bits) */
};

/* Sectors whose writes are not wanted: swap. */
struct exclusion {
	__u64 first;
	__u64 end;
};

struct control {
	__u64 head;		/* written by the program: reserved up to here */
	__u64 unused0[7];
	__u64 tail;		/* written by the loader: released up to here */
	__u64 unused1[7];
	__u64 wake_at;		/* 0, or the head at which the loader wants to be woken */
	__u64 unused2[7];
	__u64 layout;		/* LAYOUT, written last */
	__u64 mode;		/* MODE_OFF, or not */
	__u64 key;
	__u64 ring_bytes;
	__u64 segments;
	__u64 page_offset_base;
	__u64 vmemmap_base;
	__u64 targets_count;
	__u64 guard_missed;	/* the second program counts */
	__u64 guard_beside;	/* a write never seen by the hook ends data mode */
	__u64 generation;	/* of the live bits: 0 or 1 */
	__u64 epoch;		/* of the barrier */
	__u64 plane_words;	/* of one plane of the bits */
	__u64 untracked;	/* writes in flight that found no place in the table */
	__u64 suspicious;	/* some sectors are suspect */
	__u64 unused3;
	/* The loader's own, kept here because it must outlive the loader. */
	__u64 object;		/* hash of the program */
	__u64 boot[2];
	__u64 owner[2];
	__u64 durable;		/* the target has every record before this position */
	__u64 rotated;		/* head at the newest swap of the generations */
	__u64 serial;		/* of loads that took over from one another */
	__u64 unused4[80];
	struct target targets[TARGETS_MAX];
	struct exclusion exclusions[EXCLUSIONS_MAX];
	__u64 unused5[256];
};

/* Counts of one target on one processor; see the loader for their sums. */
struct counters {
	__u64 submitted;	/* writes that the hook saw */
	__u64 completed;	/* of those, the ones that have ended */
	__u64 failed;		/* of those, the ones that ended with an error */
	__u64 beside;		/* ended, but never seen by the hook */
	__u64 missed;		/* seen by the second program, not by the first */
	__u64 bytes;		/* of data copied */
	__u64 replaced;		/* not 0: another disk has come under this number (trap T-8) */
	__u64 overlaps;		/* writes of blocks of which another write was in flight */
	__u64 excluded;		/* writes to excluded sectors */
	__u64 pass_through;	/* commands past the block layer */
	__u64 issued_beside;	/* as beside, when it went to the driver */
	__u64 marked;		/* writes that are in the bitmap only */
	__u64 unended;		/* the end was not seen: their memory was used for another write */
	__u64 unused[3];
};

struct record {
	__u64 commit;		/* (position + 1) xor key, written last */
	__u64 offset;		/* bytes */
	__u64 length;		/* bytes of the disk that it covers; KIND_SKIP: of the ring */
	__u64 time_ns;		/* monotonic */
	__u32 data_bytes;	/* that follow */
	__u16 target;
	__u8 kind;
	__u8 unused0;
	__u64 unused1;
};

/* A write between the hook and its completion: one cache line. */
struct flight {
	__u64 key;		/* 0: free; 1: being filled in; else the address of its struct bio */
	__u64 epoch;
	__u64 sector;
	__u32 bytes;
	__u32 target;
	__u64 left;		/* bytes that have not ended yet: parts of a write end one by one */
	__u64 unused[3];
};

_Static_assert(sizeof(struct control) == 8192, "two pages");
_Static_assert(sizeof(struct target) == 128, "as documented");
_Static_assert(sizeof(struct counters) == 128, "as documented");
_Static_assert(sizeof(struct record) == 48, "as documented");
_Static_assert(sizeof(struct flight) == 64, "as documented");
_Static_assert(SEGMENT_VALUE % 4096 == 0, "whole pages can be mapped");
