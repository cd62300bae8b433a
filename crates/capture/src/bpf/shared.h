/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the program and its loader share. The loader's view of the same bytes is in ../layout.rs; a
 * test compares the two through the compiled object's type information.
 */
#pragma once

#include <linux/types.h>

#define TARGETS_MAX 32
#define FLIGHTS_MAX 65536

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

enum mode {
	MODE_OFF = 0,
	MODE_DATA = 1,
	MODE_LOST = 2,
};

enum reason {
	LOST_OVERFLOW = 1,	/* the ring was full */
	LOST_UNREADABLE = 2,	/* a page of a write could not be read */
	LOST_MISSED = 3,	/* the hook was skipped */
	LOST_BESIDE = 4,	/* a write completed that the hook has not seen */
	LOST_UNKNOWN_OP = 5,	/* an operation that writes, and that is none of ours */
	LOST_FLIGHTS = 6,	/* more writes in flight than can be tracked */
	LOST_CONTENDED = 7,	/* no place in the ring after many tries */
};

enum kind {
	KIND_WRITE = 1,
	KIND_ZERO = 2,
	KIND_DISCARD = 3,
	KIND_FAILED = 4,
	KIND_UNREADABLE = 5,
};

struct target {
	__u32 major;
	__u32 first_minor;
	__u64 diskseq;
};

struct counters {
	__u64 submitted;	/* writes that the hook saw */
	__u64 completed;	/* of those, the ones that have ended */
	__u64 failed;		/* of those, the ones that ended with an error */
	__u64 beside;		/* completed, but never seen by the hook */
	__u64 missed;		/* seen by the second program, not by the first */
	__u64 bytes;		/* of data copied */
	__u64 replaced;		/* not 0: another disk has come under this number (trap T-8) */
	__u64 unused;
};

struct control {
	__u64 head;		/* written by the program: reserved up to here */
	__u64 unused0[7];
	__u64 tail;		/* written by the loader: read and durable up to here */
	__u64 unused1[7];
	__u64 lost;		/* 0, or reason (6 bits), target (6 bits), position / 8 (52 bits) */
	__u64 mode;
	__u64 key;
	__u64 ring_bytes;
	__u64 segments;
	__u64 page_offset_base;
	__u64 vmemmap_base;
	__u64 targets_count;
	__u64 waiting;		/* the loader sleeps and wants to be woken */
	__u64 guard_missed;	/* the second program counts */
	__u64 guard_beside;	/* a completion never seen by the hook ends data mode */
	__u64 unused2[5];
	__u64 sequence;		/* of submissions, over all targets */
	__u64 unused3[31];
	struct target targets[TARGETS_MAX];
	struct counters counters[TARGETS_MAX];
	__u64 unused4[128];
};

struct record {
	__u64 commit;		/* (position + 1) xor key, written last */
	__u64 offset;		/* bytes */
	__u64 length;		/* bytes of the disk that it covers */
	__u64 time_ns;		/* monotonic */
	__u32 data_bytes;	/* that follow */
	__u16 target;
	__u8 kind;
	__u8 unused0;
	__u64 unused1;
};

/* A write between the hook and its completion; the key is the address of its struct bio. */
struct flight {
	__u64 sequence;
	__u64 sector;
	__u32 bytes;
	__u32 target;
	__u64 left;		/* bytes that have not ended yet: parts of a write end one by one */
};

_Static_assert(sizeof(struct control) == 4096, "one page");
_Static_assert(sizeof(struct record) == 48, "as documented");
_Static_assert(SEGMENT_VALUE % 4096 == 0, "whole pages can be mapped");
