#include "dtype.h"

static const bnc_dtype dtypes[BNC_DTYPE_COUNT] = {
#define DTYPE(name, gguf_type, packing, block, block_bytes, row_bytes, tail_bytes, convertible) \
    {#name, gguf_type, BNC_PACK_##packing, block, block_bytes, row_bytes, tail_bytes, convertible},
#include "dtype.def"
#undef DTYPE
};

int32_t bnc_dtype_count(void) { return BNC_DTYPE_COUNT; }

const bnc_dtype *bnc_dtype_at(int32_t dtype) { return dtype >= 0 && dtype < BNC_DTYPE_COUNT ? &dtypes[dtype] : NULL; }

int32_t bnc_dtype_of_gguf(uint32_t gguf_type) {
    for (int32_t i = 0; i < BNC_DTYPE_COUNT; i++)
        if (dtypes[i].gguf_type >= 0 && (uint32_t)dtypes[i].gguf_type == gguf_type)
            return i;
    return -1;
}

bnc_status bnc_dtype_size(int32_t dtype, int64_t n_rows, int64_t ne0, uint64_t offset, int64_t *nbytes,
                          bnc_error *err) {
    const bnc_dtype *d = bnc_dtype_at(dtype);
    if (!d)
        return bnc_error_at(err, BNC_ERR_ARGUMENT, offset, "dtype %d does not exist", (int)dtype);
    if (n_rows < 1 || ne0 < 1)
        return bnc_error_at(err, BNC_ERR_ARGUMENT, offset,
                            "a %s tensor needs at least 1 row and 1 column, not %lld x %lld", d->name,
                            (long long)n_rows, (long long)ne0);
    /* What must be a whole number of blocks. */
    int64_t n = 0, row = 0, total = 0;
    bool fits = bnc_mul_i64(n_rows, ne0, &n);
    const int64_t whole = d->packing == BNC_PACK_FLAT   ? n
                          : d->packing == BNC_PACK_ROW  ? ne0
                          : d->packing == BNC_PACK_ROW4 ? n_rows
                                                        : d->block;
    if (fits && whole % d->block)
        return bnc_error_at(err, BNC_ERR_ARGUMENT, offset,
                            "%s packs %lld %s at a time; a tensor of %lld x %lld does not divide", d->name,
                            (long long)d->block,
                            d->packing == BNC_PACK_FLAT  ? "elements"
                            : d->packing == BNC_PACK_ROW ? "elements of a row"
                                                         : "rows",
                            (long long)n_rows, (long long)ne0);
    if (d->packing == BNC_PACK_FLAT || d->packing == BNC_PACK_ROW4)
        fits = fits && bnc_mul_i64(n / d->block, d->block_bytes, &total);
    else
        fits = fits && ne0 <= INT64_MAX - d->block && bnc_mul_i64(bnc_ceil_div(ne0, d->block), d->block_bytes, &row) &&
               bnc_add_i64(row, d->row_bytes, &row) && bnc_mul_i64(n_rows, row, &total);
    if (!fits || !bnc_add_i64(total, d->tail_bytes, &total))
        return bnc_error_at(err, BNC_ERR_ARGUMENT, offset, "a %s tensor of %lld x %lld is larger than any memory",
                            d->name, (long long)n_rows, (long long)ne0);
    *nbytes = total;
    return BNC_OK;
}

int64_t bnc_dtype_nbytes(int32_t dtype, int64_t n_rows, int64_t ne0, bnc_error *err) {
    int64_t nbytes = -1;
    return bnc_dtype_size(dtype, n_rows, ne0, BNC_NO_OFFSET, &nbytes, err) == BNC_OK ? nbytes : -1;
}
