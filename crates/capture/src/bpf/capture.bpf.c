// SPDX-License-Identifier: GPL-2.0-only
/*
 * Captures the writes of some disks, with their bytes, in one order.
 *
 * on_queue    runs in the submitter's context before a bio goes to the driver: marks the blocks,
 *             reserves a place in the ring and copies the bytes. The order of reservation is the
 *             order of the log, over all disks and processors: of two writes of which one had
 *             completed before the other was submitted, the first comes first.
 * on_missed   runs after it on the same hook and notices when on_queue was skipped.
 * on_issue    guards the way to the driver: writes that came past the hook (trap T-7), and
 *             commands that came past the block layer.
 * on_request_complete, on_bio_complete: the end of writes; they notice those that failed, and
 *             those that no hook has seen.
 *
 * Whatever goes wrong ends data mode with a reason. Nothing here waits, and nothing delays
 * production.
 */
#include "copy.h"

char LICENSE[] SEC("license") = "GPL";

extern const void page_offset_base __ksym __weak;
extern const void vmemmap_base __ksym __weak;

static __always_inline __u64 sequence_of(struct gendisk *disk)
{
	return bpf_core_field_exists(disk->diskseq) ? BPF_CORE_READ(disk, diskseq) : 0;
}

static __always_inline __u32 find_target_of(struct gendisk *disk)
{
	if (!disk)
		return NO_TARGET;
	return find_disk(BPF_CORE_READ(disk, major), BPF_CORE_READ(disk, first_minor),
			 sequence_of(disk));
}

/* As find_target_of(), where the verifier knows the type: no call for each field. */
static __always_inline __u32 find_target(struct bio *bio)
{
	struct block_device *device = bio->bi_bdev;
	struct gendisk *disk;
	__u64 sequence = 0;

	if (!device)
		return NO_TARGET;
	disk = device->bd_disk;
	if (bpf_core_field_exists(disk->diskseq))
		sequence = disk->diskseq;
	return find_disk(disk->major, disk->first_minor, sequence);
}

/* True when none of it is wanted. */
__attribute__((noinline)) __u32 excluded(__u32 target, __u64 sector, __u64 bytes)
{
	struct control *ctl = get_control();
	struct target *disk;
	__u64 i;

	if (!ctl)
		return 0;
	disk = get_target(ctl, target);
	for (i = 0; i < EXCLUSIONS_PER_TARGET_MAX && i < disk->excluded_count; i++) {
		__u64 at = disk->excluded_first + i;
		struct exclusion *range = &ctl->exclusions[at & (EXCLUSIONS_MAX - 1)];

		if (sector >= range->first && sector + (bytes >> 9) <= range->end)
			return 1;
	}
	return 0;
}

static __always_inline bool is_excluded(struct control *ctl, __u32 target, __u64 sector,
					__u64 bytes)
{
	return get_target(ctl, target)->excluded_count && excluded(target, sector, bytes);
}

/* Every operation but these may write; also those that don't exist yet. */
static __always_inline bool may_write(__u32 op)
{
	return op != OP_READ && op != OP_FLUSH && op != OP_DRV_IN;
}

static __always_inline bool is_encrypted(struct bio *bio)
{
	return bpf_core_field_exists(bio->bi_crypt_context) && bio->bi_crypt_context;
}

static __always_inline void lose_here(struct control *ctl, __u64 reason, __u32 target)
{
	lose(ctl, reason, target, READ_ONCE(ctl->head));
}

static __always_inline void lose_all(struct control *ctl, __u64 reason, __u32 target)
{
	WRITE_ONCE(get_target(ctl, target)->all_dirty, reason);
	lose_here(ctl, reason, target);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_queue, struct bio *bio)
{
	__u32 op = bio->bi_opf & OP_MASK, bytes = bio->bi_iter.bi_size, target, bad;
	__u64 sector = bio->bi_iter.bi_sector;
	struct control *ctl = get_control();

	if (!may_write(op) || !ctl || READ_ONCE(ctl->mode) == MODE_OFF)
		return 0;
	/* A write without data is a flush. */
	if (!bytes && op == OP_WRITE)
		return 0;
	target = find_target(bio);
	if (target >= TARGETS_MAX)
		return 0;
	if (!bytes) {
		lose_all(ctl, LOST_UNKNOWN_OP, target);
		return 0;
	}
	if (is_excluded(ctl, target, sector, bytes)) {
		COUNT(target, excluded, 1);
		return 0;
	}
	COUNT(target, submitted, 1);
	bad = mark(target, sector << 9, bytes);
	if (bad)
		lose_here(ctl, bad, target);
	bad = begin_flight(key_of(bio), sector, bytes, target);
	if (bad)
		lose_here(ctl, bad, target);
	if (op == OP_WRITE && is_encrypted(bio))
		lose_here(ctl, LOST_ENCRYPTED, target);
	bad = blocks_begin(target, sector, bytes);
	if (bad) {
		COUNT(target, overlaps, 1);
		__sync_fetch_and_add(&get_target(ctl, target)->suspects, 1);
	}
	if (READ_ONCE(get_target(ctl, target)->mode) != MODE_DATA) {
		COUNT(target, marked, 1);
		return 0;
	}
	switch (op) {
	case OP_WRITE:
		capture_bytes(ctl, bio, target, bytes);
		break;
	case OP_WRITE_ZEROES:
		put(ctl, KIND_ZERO, target, sector << 9, bytes);
		break;
	case OP_DISCARD:
	case OP_SECURE_ERASE:
		put(ctl, KIND_DISCARD, target, sector << 9, bytes);
		break;
	default:
		/* It may write elsewhere than where it says, as a zone append does. */
		lose_all(ctl, LOST_UNKNOWN_OP, target);
	}
	if (bad)
		put(ctl, KIND_OVERLAP, target, sector << 9, bytes);
	return 0;
}

/* Attached after on_queue, so it runs after it: a write that has no flight by now was missed. */
SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_missed, struct bio *bio)
{
	__u32 bytes = bio->bi_iter.bi_size, target;
	__u64 sector = bio->bi_iter.bi_sector;
	struct control *ctl = get_control();
	struct flight *flight;

	if (!may_write(bio->bi_opf & OP_MASK) || !bytes || !ctl || !READ_ONCE(ctl->guard_missed))
		return 0;
	target = find_target(bio);
	if (target >= TARGETS_MAX)
		return 0;
	flight = flight_of(key_of(bio));
	if (flight && flight->sector == sector && flight->bytes == bytes)
		return 0;
	if (is_excluded(ctl, target, sector, bytes))
		return 0;
	COUNT(target, missed, 1);
	mark(target, sector << 9, bytes);
	begin_flight(key_of(bio), sector, bytes, target);
	lose_here(ctl, LOST_MISSED, target);
	return 0;
}

/* A write to a target that on_queue has not seen. */
static __always_inline bool note_beside(struct control *ctl, __u32 target, __u64 sector,
					__u64 bytes)
{
	if (is_excluded(ctl, target, sector, bytes))
		return false;
	mark(target, sector << 9, bytes);
	if (READ_ONCE(ctl->guard_beside))
		lose_here(ctl, LOST_BESIDE, target);
	return true;
}

static __always_inline struct gendisk *disk_of(struct request *request)
{
	struct request___old *old = (void *)request;

	if (bpf_core_field_exists(request->q->disk))
		return BPF_CORE_READ(request, q, disk);
	if (bpf_core_field_exists(old->rq_disk))
		return BPF_CORE_READ(old, rq_disk);
	return NULL;
}

/*
 * Looks at the first bio of a request only: on_request_complete looks at all of them, this one is
 * earlier.
 */
SEC("tp_btf/block_rq_issue")
int BPF_PROG(on_issue, struct request *request)
{
	__u32 op = request->cmd_flags & OP_MASK, target;
	struct bio *bio = request->bio;
	struct control *ctl = get_control();

	if (!may_write(op) || !ctl || READ_ONCE(ctl->mode) == MODE_OFF)
		return 0;
	if (op == OP_DRV_OUT) {
		target = find_target_of(disk_of(request));
		if (target >= TARGETS_MAX)
			return 0;
		COUNT(target, pass_through, 1);
		lose_all(ctl, LOST_PASS_THROUGH, target);
		return 0;
	}
	if (!bio || !request->__data_len)
		return 0;
	if (flight_of(key_of(bio)) ||
	    parent_of(key_of(bio->bi_private), bio->bi_iter.bi_sector))
		return 0;
	target = find_target_of(disk_of(request));
	if (target < TARGETS_MAX &&
	    note_beside(ctl, target, request->__sector, request->__data_len))
		COUNT(target, issued_beside, 1);
	return 0;
}

/* The record before the flight's end: whoever sees no flight any more sees the failure. */
static __always_inline void note_failure(struct control *ctl, __u32 target, __u64 offset,
					 __u64 length)
{
	COUNT(target, failed, 1);
	if (READ_ONCE(get_target(ctl, target)->mode) == MODE_DATA)
		put(ctl, KIND_FAILED, target & (TARGETS_MAX - 1), offset, length);
}

/* A part of a request has ended: this bio, or a part of it. */
static __always_inline void part_ended(struct control *ctl, struct flight *flight, __u64 sector,
				       __u32 bytes, bool failed)
{
	if (failed)
		note_failure(ctl, flight->target, sector << 9, bytes);
	if (__sync_fetch_and_sub(&flight->left, bytes) == bytes)
		end_flight(flight);
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

#define BIOS_MAX (1U << 16)

static long walk_step(__u32 number, void *context)
{
	struct control *ctl = get_control();
	struct walk *walk = bpf_map_lookup_elem(&walks, &zero);
	struct flight *flight;
	__u32 bytes, target;
	struct bio *bio;
	__u64 sector;

	if (!ctl || !walk || !walk->bio || !walk->bytes)
		return 1;
	bio = (struct bio *)walk->bio;
	bytes = BPF_CORE_READ(bio, bi_iter.bi_size);
	sector = BPF_CORE_READ(bio, bi_iter.bi_sector);
	if (bytes > walk->bytes)
		bytes = walk->bytes;
	walk->bytes -= bytes;
	flight = flight_of(walk->bio);
	if (!flight)
		flight = parent_of((__u64)BPF_CORE_READ(bio, bi_private), sector);
	walk->bio = (__u64)BPF_CORE_READ(bio, bi_next);
	if (flight) {
		part_ended(ctl, flight, sector, bytes, walk->failed);
		return 0;
	}
	if (!bytes)
		return 0;
	target = find_target_of(BPF_CORE_READ(bio, bi_bdev, bd_disk));
	if (target < TARGETS_MAX && note_beside(ctl, target, sector, bytes))
		COUNT(target, beside, 1);
	return 0;
}

/* Drivers with requests: the bios have not been advanced yet. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_request_complete, struct request *request, __u8 error, unsigned int bytes)
{
	__u32 op = request->cmd_flags & OP_MASK;
	struct control *ctl = get_control();
	struct bio *bio = request->bio;
	struct flight *flight;
	struct walk *walk;
	int i;

	if (!may_write(op) || op == OP_DRV_OUT || !ctl || !bio ||
	    READ_ONCE(ctl->mode) == MODE_OFF)
		return 0;
	/* Most requests are one bio, and that one a write as it was submitted. */
	flight = flight_of(key_of(bio));
	if (flight && bio->bi_iter.bi_size >= bytes) {
		part_ended(ctl, flight, bio->bi_iter.bi_sector, bytes, error);
		return 0;
	}
	walk = bpf_map_lookup_elem(&walks, &zero);
	if (!walk)
		return 0;
	walk->bio = (__u64)bio;
	walk->bytes = bytes;
	walk->failed = error;
	if (HAS_LOOP)
		bpf_loop(BIOS_MAX, walk_step, NULL, 0);
	else
		for (i = 0; i < 64; i++)
			if (walk_step(i, NULL))
				break;
	return 0;
}

/* Drivers without requests, and bios that never got as far as one. All parts have ended as well. */
SEC("tp_btf/block_bio_complete")
int BPF_PROG(on_bio_complete, struct request_queue *queue, struct bio *bio)
{
	__u32 op = bio->bi_opf & OP_MASK, target;
	__u64 sector = bio->bi_iter.bi_sector;
	struct control *ctl = get_control();
	struct flight *flight;

	if (!may_write(op) || !ctl || READ_ONCE(ctl->mode) == MODE_OFF)
		return 0;
	flight = flight_of(key_of(bio));
	if (flight) {
		if (bio->bi_status)
			note_failure(ctl, flight->target, flight->sector << 9, flight->bytes);
		end_flight(flight);
		return 0;
	}
	if (parent_of(key_of(bio->bi_private), sector))
		return 0;
	/* An empty flush is no write. */
	if (!bio->bi_vcnt && op == OP_WRITE &&
	    bio->bi_opf & 1U << bpf_core_enum_value(enum req_flag_bits, __REQ_PREFLUSH))
		return 0;
	target = find_target(bio);
	if (target >= TARGETS_MAX || !READ_ONCE(ctl->guard_beside))
		return 0;
	/* How long it was is not known any more: it has been advanced to its end, if it went well. */
	if (is_excluded(ctl, target, sector, 0) || is_excluded(ctl, target, sector - 1, 0))
		return 0;
	COUNT(target, beside, 1);
	lose_all(ctl, LOST_BESIDE, target);
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
