// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures the writes of some disks, with their bytes, in one order.
 *
 * on_queue    runs in the submitter's context before a bio goes to the driver; reserves a place in
 * the ring and
 *             copies the bytes. The order of reservation is the order of the log, over all disks
 *             and processors: of two writes of which one had completed before the other was
 *             submitted, the first comes first.
 * on_missed   runs after it on the same hook and notices when on_queue was skipped.
 * on_request_complete, on_bio_complete: the end of writes; they notice those that failed, and those
 * that no hook
 *             has seen.
 *
 * Whatever goes wrong ends data mode with a reason. Nothing here waits, and nothing delays
 * production.
 */
#include "ring.h"

char LICENSE[] SEC("license") = "GPL";

/* Takes the next vector of the bio; false when it can't be read. */
static __always_inline bool next_vector(struct control *ctl, struct job *job)
{
	struct bio_vec *vector = (struct bio_vec *)job->vectors;
	__u64 page = (__u64)BPF_CORE_READ(vector, bv_page);
	__u32 length = BPF_CORE_READ(vector, bv_len);
	__u32 offset = BPF_CORE_READ(vector, bv_offset);
	__u32 skip = job->vector_skip;

	if (!page || page < ctl->vmemmap_base || length < skip)
		return false;
	/* A vector is physically contiguous, also over many pages, and the direct map is linear. */
	job->source = ctl->page_offset_base +
		      (page - ctl->vmemmap_base) / bpf_core_type_size(struct page) * PAGE_BYTES + offset + skip;
	job->vector_left = length - skip;
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
	struct job *job = bpf_map_lookup_elem(&jobs, &zero);
	__u64 position;

	if (!job)
		return;
	position = reserve(records * sizeof(struct record) + bytes, target);
	if (position == NO_PLACE)
		return;
	job->vectors = (__u64)bio->bi_io_vec;
	job->vectors += (__u64)bio->bi_iter.bi_idx * bpf_core_type_size(struct bio_vec);
	job->vector_skip = bio->bi_iter.bi_bvec_done;
	job->vector_left = 0;
	job->position = position;
	job->offset = bio->bi_iter.bi_sector << 9;
	job->left = bytes;
	job->record_done = 0;
	job->target = target;
	job->bad = 0;
	bpf_loop(STEPS_MAX, copy_step, NULL, 0);
	if (job->bad || job->left) {
		/* The loader must not wait for a record that never comes: it finds this one and stops here. */
		lose(ctl, LOST_UNREADABLE, target, job->position);
		commit(ctl, job->position, KIND_UNREADABLE, target, job->offset, job->left, 0);
		return;
	}
	__sync_fetch_and_add(&ctl->counters[target & (TARGETS_MAX - 1)].bytes, bytes);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_queue, struct bio *bio)
{
	struct control *ctl = get_control();
	__u32 op = bio->bi_opf & OP_MASK, bytes = bio->bi_iter.bi_size, target;
	__u64 key = (__u64)bio, offset = bio->bi_iter.bi_sector << 9;
	struct flight flight = {};

	/* A bio without data is a flush. */
	if (!(op & 1) || !bytes || !ctl || READ_ONCE(ctl->mode) != MODE_DATA)
		return 0;
	target = find_target(bio);
	if (target >= TARGETS_MAX)
		return 0;
	flight.sequence = __sync_fetch_and_add(&ctl->sequence, 1);
	flight.sector = bio->bi_iter.bi_sector;
	flight.bytes = bytes;
	flight.left = bytes;
	flight.target = target;
	if (bpf_map_update_elem(&flights, &key, &flight, BPF_ANY)) {
		lose(ctl, LOST_FLIGHTS, target, READ_ONCE(ctl->head));
		return 0;
	}
	__sync_fetch_and_add(&ctl->counters[target].submitted, 1);
	switch (op) {
	case OP_WRITE:
		capture_bytes(ctl, bio, target, bytes);
		break;
	case OP_WRITE_ZEROES:
		put(ctl, KIND_ZERO, target, offset, bytes);
		break;
	case OP_DISCARD:
	case OP_SECURE_ERASE:
		put(ctl, KIND_DISCARD, target, offset, bytes);
		break;
	default:
		lose(ctl, LOST_UNKNOWN_OP, target, READ_ONCE(ctl->head));
	}
	return 0;
}

/* Attached after on_queue, so it runs after it: a write that has no flight by now was missed. */
SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_missed, struct bio *bio)
{
	struct control *ctl = get_control();
	__u32 bytes = bio->bi_iter.bi_size, target;
	__u64 key = (__u64)bio;
	struct flight *flight;

	if (!(bio->bi_opf & 1) || !bytes || !ctl || !READ_ONCE(ctl->guard_missed) ||
	    READ_ONCE(ctl->mode) != MODE_DATA)
		return 0;
	target = find_target(bio);
	if (target >= TARGETS_MAX)
		return 0;
	flight = bpf_map_lookup_elem(&flights, &key);
	if (flight && flight->sector == bio->bi_iter.bi_sector && flight->bytes == bytes)
		return 0;
	__sync_fetch_and_add(&ctl->counters[target].missed, 1);
	lose(ctl, LOST_MISSED, target, READ_ONCE(ctl->head));
	return 0;
}

/* The write that this bio is, or was split off: a part lies in it and names it as its parent. */
static __always_inline struct flight *find_flight(struct bio *bio, __u64 sector, __u64 *key)
{
	struct flight *flight;

	*key = (__u64)bio;
	flight = bpf_map_lookup_elem(&flights, key);
	if (flight)
		return flight;
	*key = (__u64)BPF_CORE_READ(bio, bi_private);
	flight = bpf_map_lookup_elem(&flights, key);
	/* Writes that are chained to their successor name it too, but don't lie in it. */
	if (flight && sector >= flight->sector && sector - flight->sector <= flight->bytes >> 9)
		return flight;
	return NULL;
}

static __always_inline void note_failure(struct control *ctl, __u32 target, __u64 offset,
					 __u64 length)
{
	__sync_fetch_and_add(&ctl->counters[target & (TARGETS_MAX - 1)].failed, 1);
	if (READ_ONCE(ctl->mode) == MODE_DATA)
		put(ctl, KIND_FAILED, target & (TARGETS_MAX - 1), offset, length);
}

static __always_inline void end_flight(struct control *ctl, __u64 key, __u32 target)
{
	bpf_map_delete_elem(&flights, &key);
	__sync_fetch_and_add(&ctl->counters[target & (TARGETS_MAX - 1)].completed, 1);
}

/* A write to a target has ended that on_queue has not seen. */
static __always_inline void note_beside(struct control *ctl, __u32 target)
{
	__sync_fetch_and_add(&ctl->counters[target & (TARGETS_MAX - 1)].beside, 1);
	if (READ_ONCE(ctl->guard_beside))
		lose(ctl, LOST_BESIDE, target, READ_ONCE(ctl->head));
}

/* find_target() for a bio of which only the address is known. */
static __always_inline __u32 find_target_of(struct bio *bio)
{
	struct gendisk *disk = BPF_CORE_READ(bio, bi_bdev, bd_disk);

	if (!disk)
		return NO_TARGET;
	return find_disk(BPF_CORE_READ(disk, major), BPF_CORE_READ(disk, first_minor),
			 BPF_CORE_READ(disk, diskseq));
}

/* Where on_request_complete stands in a request's bios; see struct job for why it is a map. */
struct walk {
	__u64 bio;
	__u32 bytes;	/* of the request that have ended and are not yet shared out */
	__u32 failed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct walk);
} walks SEC(".maps");

static long walk_step(__u32 index, void *context)
{
	struct control *ctl = get_control();
	struct walk *walk = bpf_map_lookup_elem(&walks, &zero);
	struct flight *flight;
	struct bio *bio;
	__u64 key, sector;
	__u32 bytes, target;

	if (!ctl || !walk || !walk->bio || !walk->bytes)
		return 1;
	bio = (struct bio *)walk->bio;
	bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
	sector = BPF_CORE_READ(bio, bi_iter.bi_sector);
	if (bytes > walk->bytes)
		bytes = walk->bytes;
	walk->bytes -= bytes;
	walk->bio = (__u64)BPF_CORE_READ(bio, bi_next);
	flight = find_flight(bio, sector, &key);
	if (flight) {
		target = flight->target;
		/* The record before the flight's end: whoever sees no flight any more sees the failure. */
		if (walk->failed)
			note_failure(ctl, target, sector << 9, bytes);
		if (__sync_fetch_and_sub(&flight->left, bytes) == bytes)
			end_flight(ctl, key, target);
		return 0;
	}
	if (!bytes || READ_ONCE(ctl->mode) != MODE_DATA)
		return 0;
	target = find_target_of(bio);
	if (target < TARGETS_MAX)
		note_beside(ctl, target);
	return 0;
}

/* Drivers with requests: the bios have not been advanced yet. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_request_complete, struct request *request, __u8 error, unsigned int bytes)
{
	struct walk *walk = bpf_map_lookup_elem(&walks, &zero);

	if (!(request->cmd_flags & 1) || !walk)
		return 0;
	walk->bio = (__u64)request->bio;
	walk->bytes = bytes;
	walk->failed = error;
	bpf_loop(BIOS_MAX, walk_step, NULL, 0);
	return 0;
}

/* Drivers without requests, and bios that never got as far as one. All parts have ended as well. */
SEC("tp_btf/block_bio_complete")
int BPF_PROG(on_bio_complete, struct request_queue *queue, struct bio *bio)
{
	struct control *ctl = get_control();
	__u64 key, sector = bio->bi_iter.bi_sector;
	struct flight *flight;
	__u32 target;

	if (!(bio->bi_opf & 1) || !ctl)
		return 0;
	flight = find_flight(bio, sector, &key);
	if (flight) {
		target = flight->target;
		if (key != (__u64)bio)
			return 0;
		if (bio->bi_status)
			note_failure(ctl, target, flight->sector << 9, flight->bytes);
		end_flight(ctl, key, target);
		return 0;
	}
	if (READ_ONCE(ctl->mode) != MODE_DATA)
		return 0;
	/* An empty flush is no write. */
	if (!bio->bi_vcnt && (bio->bi_opf & OP_MASK) == OP_WRITE &&
	    bio->bi_opf & 1U << bpf_core_enum_value(enum req_flag_bits, __REQ_PREFLUSH))
		return 0;
	target = find_target(bio);
	if (target < TARGETS_MAX)
		note_beside(ctl, target);
	return 0;
}

/* By the loader, once: where the kernel's direct map and its array of pages begin, if it tells. */
SEC("syscall")
int read_bases(void *context)
{
	struct control *ctl = get_control();

	if (!ctl)
		return 1;
	if (&page_offset_base)
		bpf_probe_read_kernel(&ctl->page_offset_base, 8, &page_offset_base);
	if (&vmemmap_base)
		bpf_probe_read_kernel(&ctl->vmemmap_base, 8, &vmemmap_base);
	return 0;
}
