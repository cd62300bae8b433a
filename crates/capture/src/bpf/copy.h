/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies a write's bytes into the ring.
 */
#pragma once

#include "flights.h"

#define STEPS_MAX (1U << 20)

/*
 * State of one copy. In a map rather than on the stack: what is loaded from a map is unknown to the
 * verifier, so the loop below converges on every kernel. on_queue can't interrupt itself on a
 * processor (the kernel then skips it, which on_missed sees), so one per processor is enough.
 */
struct job {
	__u64 vectors;		/* address of the next struct bio_vec */
	__u64 source;		/* address of the next byte */
	__u64 position;		/* of the record being filled */
	__u64 end;		/* of the reservation */
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

/* What a struct bio_vec has been on all kernels: read at once, where it is. */
struct vector {
	__u64 page;
	__u32 length;
	__u32 offset;
};
#define IS_VECTOR                                                                              \
	(bpf_core_type_size(struct bio_vec) == sizeof(struct vector) &&                        \
	 bpf_core_field_offset(struct bio_vec, bv_page) == offsetof(struct vector, page) &&     \
	 bpf_core_field_offset(struct bio_vec, bv_len) == offsetof(struct vector, length) &&    \
	 bpf_core_field_offset(struct bio_vec, bv_offset) == offsetof(struct vector, offset))

static __always_inline void read_vector(struct vector *found, const void *at)
{
	const struct bio_vec *vector = at;

	if (IS_VECTOR) {
		bpf_probe_read_kernel(found, sizeof(*found), at);
		return;
	}
	found->page = (__u64)BPF_CORE_READ(vector, bv_page);
	found->length = BPF_CORE_READ(vector, bv_len);
	found->offset = BPF_CORE_READ(vector, bv_offset);
}

/* Takes the next vector of the bio; false when it can't be read. */
static __always_inline bool next_vector(struct control *ctl, struct job *job)
{
	struct vector vector = {};
	__u32 skip = job->vector_skip;

	read_vector(&vector, (void *)job->vectors);
	if (vector.page < ctl->vmemmap_base || !vector.page || vector.length < skip)
		return false;
	/* A vector is physically contiguous, also over many pages, and the direct map is linear. */
	job->source = ctl->page_offset_base +
		      (vector.page - ctl->vmemmap_base) / bpf_core_type_size(struct page) *
			      PAGE_BYTES +
		      vector.offset + skip;
	job->vector_left = vector.length - skip;
	job->vector_skip = 0;
	job->vectors += bpf_core_type_size(struct bio_vec);
	return true;
}

static long copy_step(__u32 index, void *context)
{
	struct control *ctl = get_control();
	struct job *job = bpf_map_lookup_elem(&jobs, &zero);
	__u32 chunk, done;
	void *segment;

	if (!ctl || !job || !job->left)
		return 1;
	if (!job->record_done)
		job->record_bytes = job->left < RECORD_DATA_MAX ? job->left : RECORD_DATA_MAX;
	if (!job->vector_left && !next_vector(ctl, job))
		goto bad;
	chunk = job->record_bytes - job->record_done;
	if (chunk > job->vector_left)
		chunk = job->vector_left;
	if (chunk > COPY_MAX)
		chunk = COPY_MAX;
	if (!chunk) /* an empty vector */
		return 0;
	segment = segment_at(ctl, job->position);
	done = job->record_done;
	if (!segment || done > RECORD_DATA_MAX)
		goto bad;
	segment += (job->position & (SEGMENT_BYTES - 8)) + sizeof(struct record);
	if (bpf_probe_read_kernel(segment + done, chunk, (void *)job->source))
		goto bad;
	job->source += chunk;
	job->vector_left -= chunk;
	job->record_done += chunk;
	job->left -= chunk;
	if (job->record_done == job->record_bytes) {
		commit(ctl, job->position, KIND_WRITE, job->target, job->offset, job->record_bytes,
		       job->record_bytes);
		job->position += sizeof(struct record) + job->record_bytes;
		job->offset += job->record_bytes;
		job->record_done = 0;
	}
	return 0;
bad:
	job->bad = 1;
	return 1;
}

/* Copies a bio's bytes into as many records as they need, of one reservation. */
static __always_inline void capture_bytes(struct control *ctl, struct bio *bio, __u32 target,
					  __u32 bytes)
{
	__u64 records = ((__u64)bytes + RECORD_DATA_MAX - 1) / RECORD_DATA_MAX;
	__u64 need = records * sizeof(struct record) + bytes;
	struct job *job = bpf_map_lookup_elem(&jobs, &zero);
	__u64 position;

	if (!job)
		return;
	position = reserve(need, target);
	if (position == NO_PLACE)
		return;
	/* Read, not dereferenced: to 6.1's verifier it would be a pointer, of which it refuses sums. */
	job->vectors = (__u64)BPF_CORE_READ(bio, bi_io_vec);
	job->vectors += (__u64)bio->bi_iter.bi_idx * bpf_core_type_size(struct bio_vec);
	job->vector_skip = bio->bi_iter.bi_bvec_done;
	job->vector_left = 0;
	job->position = position;
	job->end = position + need;
	job->offset = bio->bi_iter.bi_sector << 9;
	job->left = bytes;
	job->record_done = 0;
	job->target = target;
	job->bad = 0;
	/* Most writes are one step; the loop is a call for each. */
	if (!copy_step(0, NULL) && job->left && HAS_LOOP)
		bpf_loop(STEPS_MAX, copy_step, NULL, 0);
	if (job->bad || job->left) {
		/* The loader must not wait for records that never come: it skips their place. */
		lose(ctl, LOST_UNREADABLE, target, job->position);
		commit(ctl, job->position, KIND_SKIP, target, job->offset,
		       job->end - job->position, 0);
		return;
	}
	COUNT(target, bytes, bytes);
}
