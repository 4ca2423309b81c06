#include "dtype.h"
#include "gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Type id 36: first Microsoft's I2_S, later claimed by others; what it means is told by the caller, by this key, or by
 * the size. */
static const char key_of_qk256[] = "bitnet_core.qk256";

/* In the order in which a size that fits several is given away. For n elements they take n/4 + 32, n/32 * 10 and, row
 * by row, n/4 bytes. Small tensors fit more than one (n = 512: 160 bytes both for i2_s and bitnet32); the published
 * format goes first. qk256 bytes are never taken for granted: a wrong guess would run and produce nonsense. */
static const int32_t candidates_of_36[] = {BNC_DTYPE_i2_s, BNC_DTYPE_bitnet32, BNC_DTYPE_qk256};

/* ---- where a tensor's info lies, for messages ---- */

static uint64_t type_at(const bnc_gguf *gguf, const bnc_gguf_tensor *t) {
    return (uint64_t)((const uint8_t *)t->name - gguf->base) + t->name_len + 4 + 8 * (uint64_t)t->n_dims;
}
static uint64_t offset_at(const bnc_gguf *gguf, const bnc_gguf_tensor *t) { return type_at(gguf, t) + 4; }
static bnc_gguf_quoted name_of(const bnc_gguf_tensor *t) { return bnc_gguf_quote(t->name, t->name_len); }

/* ---- the bytes of one tensor ---- */

/* No overflow: the reader demands a product of all dimensions below 2^63. */
static int64_t rows_of(const bnc_gguf_tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; }

/* No overflow: nbytes < 2^63, alignment <= 2^20. */
static uint64_t padded(const bnc_gguf *gguf, uint64_t nbytes) {
    return (nbytes + gguf->alignment - 1) & ~(gguf->alignment - 1);
}

static bnc_status size_as(const bnc_gguf *gguf, bnc_gguf_tensor *t, int32_t dtype, bnc_error *err) {
    bnc_error why;
    int64_t nbytes = 0;
    if (bnc_dtype_size(dtype, rows_of(t), t->ne[0], BNC_NO_OFFSET, &nbytes, &why) != BNC_OK)
        return bnc_error_at(err, BNC_ERR_GGUF, type_at(gguf, t), "tensor \"%s\": %s", name_of(t).text, why.message);
    t->dtype = dtype;
    t->nbytes = (uint64_t)nbytes;
    return BNC_OK;
}

/* "i2_s 160, bitnet32 160" */
static void list_sizes(const bnc_gguf_tensor *t, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < BNC_COUNTOF(candidates_of_36); i++) {
        const int32_t dtype = candidates_of_36[i];
        const int64_t nbytes = bnc_dtype_nbytes(dtype, rows_of(t), t->ne[0], NULL);
        const int n = nbytes < 0 ? snprintf(text + used, size - used, "%s%s does not divide", used ? ", " : "",
                                            bnc_dtype_at(dtype)->name)
                                 : snprintf(text + used, size - used, "%s%s takes %" PRId64, used ? ", " : "",
                                            bnc_dtype_at(dtype)->name, nbytes);
        if (n < 0 || (size_t)n >= size - used)
            return; /* cut short, still terminated */
        used += (size_t)n;
    }
}

/* The first candidate that takes span bytes, exactly or once padded; else -1. */
static int32_t candidate_of(const bnc_gguf *gguf, const bnc_gguf_tensor *t, uint64_t span) {
    for (size_t i = 0; i < BNC_COUNTOF(candidates_of_36); i++) {
        const int64_t nbytes = bnc_dtype_nbytes(candidates_of_36[i], rows_of(t), t->ne[0], NULL);
        if (nbytes >= 0 && ((uint64_t)nbytes == span || padded(gguf, (uint64_t)nbytes) == span))
            return candidates_of_36[i];
    }
    return -1;
}

/* span: bytes from this tensor to the next one in the file, or to the end of the file. */
static bnc_status detect_36(const bnc_gguf *gguf, bnc_gguf_tensor *t, uint64_t span, bnc_error *err) {
    const int32_t dtype = candidate_of(gguf, t, span);
    if (dtype == BNC_DTYPE_qk256)
        return bnc_error_at(err, BNC_ERR_GGUF, type_at(gguf, t),
                            "tensor \"%s\" has type id 36 and the %" PRIu64
                            " bytes that qk256 takes, but the file does "
                            "not say that it is: ambiguous; say dtype=\"qk256\" if it is",
                            name_of(t).text, span);
    if (dtype >= 0)
        return size_as(gguf, t, dtype, err);
    char sizes[160];
    list_sizes(t, sizes, sizeof sizes);
    return bnc_error_at(err, BNC_ERR_GGUF, type_at(gguf, t),
                        "tensor \"%s\" has type id 36, which several formats share, and none fits its %" PRIu64
                        " bytes exactly (%s): say dtype= to choose one, unless the file is cut short",
                        name_of(t).text, span, sizes);
}

/* ---- the whole data section ---- */

typedef struct {
    uint64_t offset;
    int64_t index;
} place;

static int compare_places(const void *left, const void *right) {
    const place *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static bnc_status sort_places(const bnc_gguf *gguf, uint64_t room, place *places, bnc_error *err) {
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        const bnc_gguf_tensor *t = &gguf->tensor[i];
        if (t->offset & (gguf->alignment - 1))
            return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, t),
                                "tensor \"%s\" has offset %" PRIu64 "; expected a multiple of the alignment, %" PRIu64,
                                name_of(t).text, t->offset, gguf->alignment);
        if (t->offset >= room) /* no tensor is empty */
            return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, t),
                                "tensor \"%s\" has offset %" PRIu64 ", but the data section has %" PRIu64
                                " bytes: the file is cut short or damaged",
                                name_of(t).text, t->offset, room);
        places[i] = (place){t->offset, i};
    }
    qsort(places, (size_t)gguf->n_tensor, sizeof *places, compare_places);
    for (int64_t i = 1; i < gguf->n_tensor; i++)
        if (places[i].offset == places[i - 1].offset) {
            const bnc_gguf_tensor *a = &gguf->tensor[places[i - 1].index], *b = &gguf->tensor[places[i].index];
            return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, b),
                                "tensors \"%s\" and \"%s\" overlap: both have offset %" PRIu64, name_of(a).text,
                                name_of(b).text, b->offset);
        }
    return BNC_OK;
}

static bnc_status check_fits(const bnc_gguf *gguf, const bnc_gguf_tensor *t, const bnc_gguf_tensor *next, uint64_t span,
                             bnc_error *err) {
    if (t->nbytes <= span)
        return BNC_OK;
    if (next)
        return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, next),
                            "tensors \"%s\" and \"%s\" overlap: the second begins %" PRIu64 " bytes after the first, "
                            "which takes %" PRIu64,
                            name_of(t).text, name_of(next).text, span, t->nbytes);
    return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, t),
                        "tensor \"%s\" takes %" PRIu64 " bytes, but the file ends %" PRIu64
                        " bytes after it begins: it is cut short or damaged",
                        name_of(t).text, t->nbytes, span);
}

/* dtype_of_36: what id 36 means, or -1. room: bytes of the data section. */
static bnc_status place_all(bnc_gguf *gguf, const place *places, uint64_t room, int32_t dtype_of_36, bnc_error *err) {
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        bnc_gguf_tensor *t = &gguf->tensor[places[i].index];
        const bnc_gguf_tensor *next = i + 1 < gguf->n_tensor ? &gguf->tensor[places[i + 1].index] : NULL;
        const uint64_t span = (next ? places[i + 1].offset : room) - places[i].offset;
        const bool is_36 = t->gguf_type == BNC_GGUF_SHARED_ID;
        const int32_t dtype = is_36 ? dtype_of_36 : bnc_dtype_of_gguf(t->gguf_type);
        t->dtype = -1; /* and nbytes 0, data NULL: an id that this library does not know */
        if (dtype >= 0)
            BNC_TRY(size_as(gguf, t, dtype, err));
        else if (is_36)
            BNC_TRY(detect_36(gguf, t, span, err));
        BNC_TRY(check_fits(gguf, t, next, span, err));
    }
    return BNC_OK;
}

/* What upstream demands: tensors in the order of their infos, each at the padded end of the one before. */
static bnc_status check_sequence(const bnc_gguf *gguf, bnc_error *err) {
    uint64_t expected = 0; /* no overflow: every tensor lies in the file, so the sum of padded sizes is below 2^64 */
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        const bnc_gguf_tensor *t = &gguf->tensor[i];
        if (t->dtype < 0)
            return bnc_error_at(err, BNC_ERR_GGUF, type_at(gguf, t),
                                "tensor \"%s\" has type id %u, whose size is not known; strict mode expects known ids",
                                name_of(t).text, (unsigned)t->gguf_type);
        if (t->offset != expected)
            return bnc_error_at(err, BNC_ERR_GGUF, offset_at(gguf, t),
                                "tensor \"%s\" has offset %" PRIu64 "; strict mode expects %" PRIu64
                                ", the padded end of the tensor before",
                                name_of(t).text, t->offset, expected);
        expected += padded(gguf, t->nbytes);
    }
    return BNC_OK;
}

/* What id 36 means without looking at sizes: the caller's word, else the file's. */
static bnc_status told_dtype_of_36(const bnc_gguf *gguf, int32_t option, int32_t *out, bnc_error *err) {
    *out = option;
    if (option >= 0)
        return BNC_OK;
    const int64_t i = bnc_gguf_kv_find(gguf, key_of_qk256, sizeof key_of_qk256 - 1);
    if (i < 0)
        return BNC_OK;
    const bnc_gguf_kv *kv = &gguf->kv[i];
    if (kv->type != BNC_GGUF_BOOL)
        return bnc_error_at(err, BNC_ERR_GGUF, (uint64_t)(kv->data - gguf->base),
                            "%s has value type %u; expected %d (bool)", key_of_qk256, (unsigned)kv->type,
                            BNC_GGUF_BOOL);
    if (kv->data[0])
        *out = BNC_DTYPE_qk256;
    return BNC_OK;
}

bnc_status bnc_gguf_place(bnc_gguf *gguf, const bnc_gguf_options *options, bnc_error *err) {
    if (gguf->n_tensor == 0)
        return BNC_OK;
    if (gguf->data_offset >= gguf->size)
        return bnc_error_at(err, BNC_ERR_GGUF, gguf->size,
                            "the file ends before its data section, which begins at byte %" PRIu64, gguf->data_offset);
    const uint64_t room = gguf->size - gguf->data_offset;
    int32_t dtype_of_36 = -1;
    BNC_TRY(told_dtype_of_36(gguf, options->dtype_of_36, &dtype_of_36, err));
    place *places = calloc((size_t)gguf->n_tensor, sizeof *places);
    if (!places)
        return bnc_error_nomem(err, (uint64_t)gguf->n_tensor * sizeof *places);
    bnc_status status = sort_places(gguf, room, places, err);
    if (status == BNC_OK)
        status = place_all(gguf, places, room, dtype_of_36, err);
    free(places);
    BNC_TRY(status);
    if (options->strict)
        BNC_TRY(check_sequence(gguf, err));
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        gguf->tensor[i].offset += gguf->data_offset;
        if (gguf->tensor[i].dtype >= 0)
            gguf->tensor[i].data = gguf->base + gguf->tensor[i].offset;
    }
    return BNC_OK;
}
