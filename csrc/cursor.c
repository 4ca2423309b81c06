#include "cursor.h"

#include <inttypes.h>

static bnc_status ends_inside(const bnc_cursor *c, const char *what, uint64_t nbytes) {
    return bnc_error_at(c->err, BNC_ERR_GGUF, c->pos,
                        "the file ends inside %s: %" PRIu64 " bytes needed, %" PRIu64 " left", what, nbytes,
                        bnc_cursor_left(c));
}

bnc_status bnc_cursor_skip(bnc_cursor *c, uint64_t nbytes, const char *what) {
    if (nbytes > bnc_cursor_left(c))
        return ends_inside(c, what, nbytes);
    c->pos += nbytes;
    return BNC_OK;
}

bnc_status bnc_cursor_u32(bnc_cursor *c, const char *what, uint32_t *out) {
    const uint8_t *p = bnc_cursor_here(c);
    BNC_TRY(bnc_cursor_skip(c, 4, what));
    *out = bnc_load_u32(p);
    return BNC_OK;
}

bnc_status bnc_cursor_u64(bnc_cursor *c, const char *what, uint64_t *out) {
    const uint8_t *p = bnc_cursor_here(c);
    BNC_TRY(bnc_cursor_skip(c, 8, what));
    *out = bnc_load_u64(p);
    return BNC_OK;
}

bnc_status bnc_cursor_name(bnc_cursor *c, const char *what, uint64_t max, const char **text, uint64_t *len) {
    const uint64_t at = c->pos;
    uint64_t n = 0;
    BNC_TRY(bnc_cursor_u64(c, what, &n));
    if (n < 1 || n > max)
        return bnc_error_at(c->err, BNC_ERR_GGUF, at, "%s of %" PRIu64 " bytes; expected 1 to %" PRIu64, what, n, max);
    const char *p = (const char *)bnc_cursor_here(c);
    BNC_TRY(bnc_cursor_skip(c, n, what));
    /* A NUL would make two different names equal for whoever reads them as C strings. */
    if (memchr(p, 0, n))
        return bnc_error_at(c->err, BNC_ERR_GGUF, at, "%s contains a NUL byte", what);
    *text = p;
    *len = n;
    return BNC_OK;
}

bnc_status bnc_cursor_skip_strings(bnc_cursor *c, uint64_t count) {
    /* Hundreds of thousands of turns for one file: the position stays in a register. */
    uint64_t pos = c->pos;
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t left = c->size - pos;
        const uint64_t len = left < 8 ? UINT64_MAX : bnc_load_u64(c->base + pos);
        if (left < 8 || len > left - 8) {
            c->pos = pos;
            if (left < 8)
                return ends_inside(c, "the length of a string", 8);
            return bnc_error_at(c->err, BNC_ERR_GGUF, pos,
                                "string %" PRIu64 " of %" PRIu64 " claims %" PRIu64 " bytes; %" PRIu64 " are left", i,
                                count, len, left - 8);
        }
        pos += 8 + len;
    }
    c->pos = pos;
    return BNC_OK;
}
