#include "cursor.h"
#include "gguf.h"

#include <inttypes.h>
#include <stdlib.h>

/* Limits of this reader; the largest files in the wild stay far below. */
enum {
    LIMIT_COUNT = 65536,          /* keys; tensors */
    LIMIT_KEY = 65535,            /* bytes, by the specification */
    LIMIT_TENSOR_NAME = 63,       /* bytes; other engines keep 64 with the terminator */
    LIMIT_ELEMENTS = 1 << 30,     /* of an array */
    LIMIT_ALIGNMENT = 1 << 20,    /* bytes */
    MIN_KV_BYTES = 8 + 0 + 4 + 1, /* an empty key and a u8 */
    MIN_INFO_BYTES = 8 + 0 + 4 + 8 + 4 + 8,
    HEADER_BYTES = 24,
    DEFAULT_ALIGNMENT = 32
};

/* Bytes of a value by its type id; 0: it depends. */
static const uint8_t type_bytes[BNC_GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* ---- header ---- */

/* What people pass by mistake, told by its first bytes. */
static const struct {
    const char *start, *what;
} mistaken[] = {
    {"version https://git-lfs", "a Git LFS pointer: run `git lfs pull`"},
    {"PK\3\4", "a zip archive (a PyTorch checkpoint?): convert it to GGUF"},
    {"<", "a web page or XML: the download went wrong"},
    {"tjgg", "an old ggjt file: convert the model to GGUF anew"},
    {"lmgg", "an old ggml file: convert the model to GGUF anew"},
};

static bnc_status check_magic(const bnc_gguf *gguf, bnc_error *err) {
    const uint8_t *b = gguf->base;
    for (size_t i = 0; i < BNC_COUNTOF(mistaken); i++) {
        const size_t n = strlen(mistaken[i].start);
        if (gguf->size >= n && memcmp(b, mistaken[i].start, n) == 0)
            return bnc_error_at(err, BNC_ERR_GGUF, 0, "not a GGUF file but %s", mistaken[i].what);
    }
    if (gguf->size < HEADER_BYTES)
        return bnc_error_at(err, BNC_ERR_GGUF, gguf->size, "the file has %" PRIu64 " bytes; a GGUF header takes %d",
                            gguf->size, HEADER_BYTES);
    if (memcmp(b, "GGUF", 4) != 0)
        return bnc_error_at(err, BNC_ERR_GGUF, 0,
                            "not a GGUF file: it starts with %02x %02x %02x %02x, expected 47 47 55 46 (\"GGUF\")",
                            b[0], b[1], b[2], b[3]);
    return BNC_OK;
}

static bnc_status check_version(uint32_t version, uint64_t at, bnc_error *err) {
    if (version == 2 || version == 3) /* identical on disk */
        return BNC_OK;
    if (version == 0)
        return bnc_error_at(err, BNC_ERR_GGUF, at, "GGUF version 0 does not exist; expected 2 or 3");
    if (version == 1)
        return bnc_error_at(err, BNC_ERR_GGUF, at,
                            "GGUF version 1 has 32-bit counts and is not read; expected 2 or 3: convert the file anew");
    if ((version & 0xffff) == 0)
        return bnc_error_at(err, BNC_ERR_GGUF, at,
                            "the byte order is big-endian (version reads as 0x%08x); convert the file to little-endian",
                            (unsigned)version);
    return bnc_error_at(err, BNC_ERR_GGUF, at, "GGUF version %u is newer than this reader; expected 2 or 3",
                        (unsigned)version);
}

static bnc_status scan_count(bnc_cursor *c, const char *what, uint64_t min_bytes, int64_t *out) {
    const uint64_t at = c->pos;
    uint64_t n = 0;
    BNC_TRY(bnc_cursor_u64(c, what, &n));
    if (n > LIMIT_COUNT)
        return bnc_error_at(c->err, BNC_ERR_GGUF, at, "%s is %" PRIu64 "; this reader takes at most %d", what, n,
                            LIMIT_COUNT);
    const uint64_t left = c->size - HEADER_BYTES; /* not below 0: check_magic */
    if (n > left / min_bytes)
        return bnc_error_at(c->err, BNC_ERR_GGUF, at,
                            "%s is %" PRIu64 "; each takes at least %" PRIu64 " bytes and the file has %" PRIu64
                            " after its header",
                            what, n, min_bytes, left);
    *out = (int64_t)n;
    return BNC_OK;
}

static bnc_status scan_header(bnc_cursor *c, bnc_gguf *gguf) {
    BNC_TRY(check_magic(gguf, c->err));
    c->pos = 4;
    BNC_TRY(bnc_cursor_u32(c, "the version", &gguf->version));
    BNC_TRY(check_version(gguf->version, 4, c->err));
    BNC_TRY(scan_count(c, "the tensor count", MIN_INFO_BYTES, &gguf->n_tensor));
    return scan_count(c, "the key count", MIN_KV_BYTES, &gguf->n_kv);
}

/* ---- keys and values ---- */

static bnc_status scan_type(bnc_cursor *c, const bnc_gguf_kv *kv, const char *what, uint32_t *type) {
    const uint64_t at = c->pos;
    BNC_TRY(bnc_cursor_u32(c, what, type));
    if (*type >= BNC_GGUF_TYPE_COUNT)
        return bnc_error_at(c->err, BNC_ERR_GGUF, at, "%s of key \"%s\" is %u; ids go from 0 to %d", what,
                            bnc_gguf_quote(kv->key, kv->key_len).text, (unsigned)*type, BNC_GGUF_TYPE_COUNT - 1);
    return BNC_OK;
}

/* The element type and count of an array; the count is believed only as far as the file has bytes for it. */
static bnc_status scan_array_head(bnc_cursor *c, bnc_gguf_kv *kv) {
    const uint64_t type_at = c->pos, count_at = c->pos + 4;
    BNC_TRY(scan_type(c, kv, "the element type", &kv->elem_type));
    if (kv->elem_type == BNC_GGUF_ARRAY)
        return bnc_error_at(c->err, BNC_ERR_GGUF, type_at,
                            "key \"%s\" holds an array of arrays; this reader takes arrays of scalars and strings",
                            bnc_gguf_quote(kv->key, kv->key_len).text);
    BNC_TRY(bnc_cursor_u64(c, "the length of an array", &kv->count));
    const uint64_t least = kv->elem_type == BNC_GGUF_STRING ? 8 : type_bytes[kv->elem_type];
    if (kv->count > bnc_cursor_left(c) / least)
        return bnc_error_at(c->err, BNC_ERR_GGUF, count_at,
                            "key \"%s\" claims %" PRIu64 " elements of at least %" PRIu64 " bytes; %" PRIu64
                            " bytes are left",
                            bnc_gguf_quote(kv->key, kv->key_len).text, kv->count, least, bnc_cursor_left(c));
    if (kv->count > LIMIT_ELEMENTS)
        return bnc_error_at(c->err, BNC_ERR_GGUF, count_at,
                            "key \"%s\" holds %" PRIu64 " elements; this reader takes %d",
                            bnc_gguf_quote(kv->key, kv->key_len).text, kv->count, LIMIT_ELEMENTS);
    return BNC_OK;
}

static bnc_status check_bools(const bnc_cursor *c, const bnc_gguf_kv *kv) {
    for (uint64_t i = 0; i < kv->count; i++)
        if (kv->data[i] > 1)
            return bnc_error_at(c->err, BNC_ERR_GGUF, (uint64_t)(kv->data - c->base) + i,
                                "a boolean of key \"%s\" is %u; strict mode expects 0 or 1",
                                bnc_gguf_quote(kv->key, kv->key_len).text, (unsigned)kv->data[i]);
    return BNC_OK;
}

static bnc_status scan_kv(bnc_cursor *c, bnc_gguf_kv *kv, bool strict) {
    BNC_TRY(bnc_cursor_name(c, "a key", LIMIT_KEY, &kv->key, &kv->key_len));
    BNC_TRY(scan_type(c, kv, "the value type", &kv->type));
    kv->elem_type = kv->type;
    kv->count = 1;
    if (kv->type == BNC_GGUF_ARRAY)
        BNC_TRY(scan_array_head(c, kv));
    const uint64_t begin = c->pos;
    kv->data = bnc_cursor_here(c);
    if (kv->elem_type == BNC_GGUF_STRING)
        BNC_TRY(bnc_cursor_skip_strings(c, kv->count));
    else /* no overflow: scan_array_head compared count with the bytes left */
        BNC_TRY(bnc_cursor_skip(c, kv->count * type_bytes[kv->elem_type], "a value"));
    kv->nbytes = c->pos - begin;
    return strict && kv->elem_type == BNC_GGUF_BOOL ? check_bools(c, kv) : BNC_OK;
}

/* ---- tensor infos ---- */

static bnc_status scan_info(bnc_cursor *c, bnc_gguf_tensor *t) {
    BNC_TRY(bnc_cursor_name(c, "a tensor name", LIMIT_TENSOR_NAME, &t->name, &t->name_len));
    uint64_t at = c->pos;
    BNC_TRY(bnc_cursor_u32(c, "the number of dimensions", &t->n_dims));
    if (t->n_dims < 1 || t->n_dims > 4)
        return bnc_error_at(c->err, BNC_ERR_GGUF, at, "tensor \"%s\" has %u dimensions; expected 1 to 4",
                            bnc_gguf_quote(t->name, t->name_len).text, (unsigned)t->n_dims);
    int64_t n = 1;
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t ne = 1;
        at = c->pos;
        if (i < t->n_dims)
            BNC_TRY(bnc_cursor_u64(c, "a dimension", &ne));
        if (ne < 1 || ne > INT64_MAX || !bnc_mul_i64(n, (int64_t)ne, &n))
            return bnc_error_at(c->err, BNC_ERR_GGUF, at,
                                "dimension %u of tensor \"%s\" is %" PRIu64
                                "; expected at least 1, and a product below 2^63",
                                (unsigned)i, bnc_gguf_quote(t->name, t->name_len).text, ne);
        t->ne[i] = (int64_t)ne;
    }
    BNC_TRY(bnc_cursor_u32(c, "a tensor's type", &t->gguf_type));
    return bnc_cursor_u64(c, "a tensor's offset", &t->offset);
}

/* ---- names ---- */

static int compare_text(const char *a, uint64_t a_len, const char *b, uint64_t b_len) {
    const int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_names(const void *left, const void *right) {
    const bnc_gguf_name *a = left, *b = right;
    const int order = compare_text(a->text, a->len, b->text, b->len);
    return order ? order : (a->index > b->index) - (a->index < b->index);
}

static bnc_status sort_names(const bnc_gguf *gguf, bnc_gguf_name *names, int64_t n, const char *what, bnc_error *err) {
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int64_t i = 1; i < n; i++)
        if (compare_text(names[i - 1].text, names[i - 1].len, names[i].text, names[i].len) == 0)
            return bnc_error_at(err, BNC_ERR_GGUF, (uint64_t)((const uint8_t *)names[i].text - gguf->base),
                                "the %s \"%s\" occurs twice, as number %" PRId64 " and %" PRId64, what,
                                bnc_gguf_quote(names[i].text, names[i].len).text, names[i - 1].index, names[i].index);
    return BNC_OK;
}

int64_t bnc_gguf_name_find(const bnc_gguf_name *names, int64_t n, const char *text, uint64_t len) {
    int64_t lo = 0, hi = n; /* the name is in [lo, hi) if anywhere */
    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        const int order = compare_text(names[mid].text, names[mid].len, text, len);
        if (order == 0)
            return names[mid].index;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return -1;
}

bnc_gguf_quoted bnc_gguf_quote(const char *text, uint64_t len) {
    bnc_gguf_quoted quoted;
    const uint64_t room = sizeof quoted.text - 4; /* three dots and the terminator */
    uint64_t n = len < room ? len : room;
    for (uint64_t i = 0; i < n; i++)
        quoted.text[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    for (int dots = 0; len > room && dots < 3; dots++)
        quoted.text[n++] = '.';
    quoted.text[n] = 0;
    return quoted;
}

/* ---- the whole header ---- */

static void *allocate(int64_t n, size_t each) { return calloc(n ? (size_t)n : 1, each); }

static bnc_status scan_kvs(bnc_cursor *c, bnc_gguf *gguf, bool strict) {
    gguf->kv = allocate(gguf->n_kv, sizeof *gguf->kv);
    gguf->kv_names = allocate(gguf->n_kv, sizeof *gguf->kv_names);
    if (!gguf->kv || !gguf->kv_names)
        return bnc_error_nomem(c->err, (uint64_t)gguf->n_kv * (sizeof *gguf->kv + sizeof *gguf->kv_names));
    for (int64_t i = 0; i < gguf->n_kv; i++) {
        BNC_TRY(scan_kv(c, &gguf->kv[i], strict));
        gguf->kv_names[i] = (bnc_gguf_name){gguf->kv[i].key, gguf->kv[i].key_len, i};
    }
    return sort_names(gguf, gguf->kv_names, gguf->n_kv, "key", c->err);
}

static bnc_status scan_infos(bnc_cursor *c, bnc_gguf *gguf) {
    gguf->tensor = allocate(gguf->n_tensor, sizeof *gguf->tensor);
    gguf->tensor_names = allocate(gguf->n_tensor, sizeof *gguf->tensor_names);
    if (!gguf->tensor || !gguf->tensor_names)
        return bnc_error_nomem(c->err, (uint64_t)gguf->n_tensor * (sizeof *gguf->tensor + sizeof *gguf->tensor_names));
    for (int64_t i = 0; i < gguf->n_tensor; i++) {
        BNC_TRY(scan_info(c, &gguf->tensor[i]));
        gguf->tensor_names[i] = (bnc_gguf_name){gguf->tensor[i].name, gguf->tensor[i].name_len, i};
    }
    return sort_names(gguf, gguf->tensor_names, gguf->n_tensor, "tensor name", c->err);
}

static bnc_status find_alignment(const bnc_gguf *gguf, uint64_t *out, bnc_error *err) {
    static const char key[] = "general.alignment";
    const int64_t i = bnc_gguf_kv_find(gguf, key, sizeof key - 1);
    *out = DEFAULT_ALIGNMENT;
    if (i < 0)
        return BNC_OK;
    const bnc_gguf_kv *kv = &gguf->kv[i];
    const uint64_t at = (uint64_t)(kv->data - gguf->base);
    if (kv->type != BNC_GGUF_U32)
        return bnc_error_at(err, BNC_ERR_GGUF, at, "general.alignment has value type %u; expected %d (u32)",
                            (unsigned)kv->type, BNC_GGUF_U32);
    *out = bnc_load_u32(kv->data);
    if (*out < 1 || *out > LIMIT_ALIGNMENT || (*out & (*out - 1)))
        return bnc_error_at(err, BNC_ERR_GGUF, at, "general.alignment is %" PRIu64 "; expected a power of two up to %d",
                            *out, LIMIT_ALIGNMENT);
    return BNC_OK;
}

bnc_status bnc_gguf_scan(bnc_gguf *gguf, const bnc_gguf_options *options, bnc_error *err) {
    bnc_cursor c = {gguf->base, gguf->size, 0, err};
    BNC_TRY(scan_header(&c, gguf));
    BNC_TRY(scan_kvs(&c, gguf, options->strict));
    BNC_TRY(find_alignment(gguf, &gguf->alignment, err));
    BNC_TRY(scan_infos(&c, gguf));
    /* No overflow: a file is smaller than 2^63 bytes and the alignment at most 2^20. */
    gguf->data_offset = (c.pos + gguf->alignment - 1) & ~(gguf->alignment - 1);
    return BNC_OK;
}
