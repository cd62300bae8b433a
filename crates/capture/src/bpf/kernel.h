/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the kernel's structs that the program depends on, and nothing else: field offsets
 * are relocated to the running kernel when the program is loaded (CO-RE), so order and size here
 * mean nothing. A variant of older kernels has the suffix ___old.
 */
#pragma once

#include <linux/types.h>

#define CO_RE __attribute__((preserve_access_index))

struct page {
	unsigned long flags;
} CO_RE;

struct gendisk {
	int major;
	int first_minor;
	__u64 diskseq; /* since 5.15 */
} CO_RE;

struct block_device {
	struct gendisk *bd_disk;
} CO_RE;

struct bio_vec {
	struct page *bv_page;
	unsigned int bv_len;
	unsigned int bv_offset;
} CO_RE;

struct bvec_iter {
	__u64 bi_sector;
	unsigned int bi_size;
	unsigned int bi_idx;
	unsigned int bi_bvec_done;
} CO_RE;

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev; /* since 5.12 */
	unsigned int bi_opf;
	__u8 bi_status;
	struct bvec_iter bi_iter;
	void *bi_private;
	unsigned short bi_vcnt;
	struct bio_vec *bi_io_vec;
	void *bi_crypt_context; /* with CONFIG_BLK_INLINE_ENCRYPTION */
} CO_RE;

struct request_queue {
	struct gendisk *disk; /* since 5.15 */
} CO_RE;

struct request {
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
	struct request_queue *q;
} CO_RE;

struct request___old {
	struct gendisk *rq_disk; /* until 5.16 */
} CO_RE;

/* The number of this bit has moved between kernels; the value here is not used. */
enum req_flag_bits {
	__REQ_PREFLUSH = 18,
};

/* enum req_op; these numbers have not moved since 4.10. */
#define OP_MASK 0xff
#define OP_READ 0
#define OP_WRITE 1
#define OP_FLUSH 2
#define OP_DISCARD 3
#define OP_SECURE_ERASE 5
#define OP_WRITE_ZEROES 9
#define OP_DRV_IN 34
#define OP_DRV_OUT 35
