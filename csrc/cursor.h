/*
 * cursor.h - a position in untrusted bytes that cannot leave them.
 *
 * Every check has the form "what is asked for > what is left", never "position + length > size": the right-hand side
 * cannot overflow. The first failure is returned at once (BNC_TRY) with the byte position of the field to blame.
 */
#ifndef BNC_CURSOR_H
#define BNC_CURSOR_H

#include "base.h"
#include "error.h"

typedef struct {
    const uint8_t *base;
    uint64_t size;
    uint64_t pos; /* <= size, always */
    bnc_error *err;
} bnc_cursor;

BNC_INLINE uint64_t bnc_cursor_left(const bnc_cursor *c) { return c->size - c->pos; }
BNC_INLINE const uint8_t *bnc_cursor_here(const bnc_cursor *c) { return c->base + c->pos; }

/* what names the field in the message of a file that ends inside it. */
BNC_MUST_USE bnc_status bnc_cursor_skip(bnc_cursor *c, uint64_t nbytes, const char *what);
BNC_MUST_USE bnc_status bnc_cursor_u32(bnc_cursor *c, const char *what, uint32_t *out);
BNC_MUST_USE bnc_status bnc_cursor_u64(bnc_cursor *c, const char *what, uint64_t *out);
/* A name: 1 to max bytes, none of them NUL. *text is not terminated. */
BNC_MUST_USE bnc_status bnc_cursor_name(bnc_cursor *c, const char *what, uint64_t max, const char **text,
                                        uint64_t *len);
/* count strings of any content, one after the other. */
BNC_MUST_USE bnc_status bnc_cursor_skip_strings(bnc_cursor *c, uint64_t count);

#endif
