/*
 * pages.h - memory in whole pages, which the system provides one by one as they are touched.
 */
#ifndef BNC_PAGES_H
#define BNC_PAGES_H

#include "base.h"
#include "error.h"

/* bytes > 0, rounded up to pages; zeros or not, freed by free(). Small pages on purpose: of memory that is laid out for
 * the largest case only what is used becomes resident. */
bnc_status bnc_pages_new(uint64_t bytes, void **out, bnc_error *err);

#endif
