/*
 * gguf.h - an opened GGUF file, as the three files that make it see it; all others use the bnc_gguf_* functions.
 *
 *   gguf.c        the operating system's part: map or read the file; and the accessors, which cannot fail
 *   gguf_scan.c   the header: keys, values, tensor infos, each checked before it is believed
 *   gguf_place.c  the data section: what each tensor's bytes mean, how many they are, and that no two share one
 *
 * Memory. A count is compared with the bytes that are left before it sizes an allocation: a key takes at least 13 bytes
 * of file and 72 of memory, a tensor 32 and 128, so the index is at most six times the file and, by LIMIT_COUNT
 * (gguf_scan.c), at most 13 MB. Strings and arrays stay where they lie.
 */
#ifndef BNC_GGUF_H
#define BNC_GGUF_H

#include "base.h"
#include "bitnet_core.h"
#include "error.h"

/* Ids of value types. */
enum {
    BNC_GGUF_U8 = 0,
    BNC_GGUF_I8,
    BNC_GGUF_U16,
    BNC_GGUF_I16,
    BNC_GGUF_U32,
    BNC_GGUF_I32,
    BNC_GGUF_F32,
    BNC_GGUF_BOOL,
    BNC_GGUF_STRING,
    BNC_GGUF_ARRAY,
    BNC_GGUF_U64,
    BNC_GGUF_I64,
    BNC_GGUF_F64,
    BNC_GGUF_TYPE_COUNT
};

/* The tensor type id that several dtypes share. */
enum { BNC_GGUF_SHARED_ID = 36 };

/* One entry of a list of names sorted by their bytes. Sorting finds duplicates and then serves look-ups in
 * n log n steps whatever the names are; a hash table would need a secret seed to promise as much. */
typedef struct {
    const char *text;
    uint64_t len;
    int64_t index; /* of the key or tensor, in the order of the file */
} bnc_gguf_name;

struct bnc_gguf {
    const uint8_t *base; /* (size,) the whole file */
    uint64_t size;
    bool mapped; /* base is a mapping, else an allocation */

    uint32_t version;
    uint64_t alignment;   /* a power of two */
    uint64_t data_offset; /* multiple of alignment; beyond size in a file without tensors that ends unpadded */

    int64_t n_kv;
    bnc_gguf_kv *kv;         /* (n_kv,) */
    bnc_gguf_name *kv_names; /* (n_kv,) sorted */

    int64_t n_tensor;
    bnc_gguf_tensor *tensor;     /* (n_tensor,) */
    bnc_gguf_name *tensor_names; /* (n_tensor,) sorted */
};

/* Fill everything from version on, except what bnc_gguf_place fills. */
bnc_status bnc_gguf_scan(bnc_gguf *gguf, const bnc_gguf_options *options, bnc_error *err);
/* Fill dtype, nbytes and data of every tensor; before the call offset is relative to the data section, after it to the
 * file. */
bnc_status bnc_gguf_place(bnc_gguf *gguf, const bnc_gguf_options *options, bnc_error *err);

/* The bytes will not be needed soon: their pages may leave the process (they stay in the system's cache of the file). */
void bnc_gguf_give_back(const bnc_gguf *gguf, const uint8_t *data, uint64_t nbytes);

int64_t bnc_gguf_name_find(const bnc_gguf_name *names, int64_t n, const char *text, uint64_t len);

/* A name from a file, cut to a length that fits a message and free of control characters. */
typedef struct {
    char text[68];
} bnc_gguf_quoted;
bnc_gguf_quoted bnc_gguf_quote(const char *text, uint64_t len);

#endif
