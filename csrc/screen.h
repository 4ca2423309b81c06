/*
 * screen.h - the few rows of the head that can hold the next token, found without reading the head.
 *
 * The head is the largest matrix of a model and most of its products are thrown away. A copy of fewer bytes gives every
 * logit within a width; rows whose upper bound stays below the k-th best exact logit cannot be among the k best; the
 * others are computed exactly, from the file. The tokens are those of the whole exact head.
 *
 * There are two kinds of copy. They differ in their bytes, and in why a width holds:
 *
 *   dithered  screen_dithered.c: 4 bits and a share of a step, 0.28 of an F16 head; with probability 1 - 1e-12 a token
 *   proven    screen_proven.c: 8 bits, 0.50 of an F16 head; always
 */
#ifndef BNC_SCREEN_H
#define BNC_SCREEN_H

#include "model.h"
#include "sampler.h"
#include "threads.h"

/* What a row of the proven copy takes beside its codes. */
typedef struct {
    float step;     /* of the codes */
    float residual; /* what the width grows by with the length of the activation, */
    float length;   /* and with the length of what rounding takes from it */
} bnc_screen_row;

struct bnc_screen {
    const bnc_model *model;
    const struct bnc_screen_copy *copy;
    int64_t n_columns; /* n_embd, padded */
    int64_t row_bytes;
    float factor;         /* a logit is within factor * sqrt(energy) of its approximation */
    float *dither;        /* (n_columns,) u of each column; of the dithered kind */
    uint8_t *codes;       /* (n_vocab, row_bytes) */
    bnc_screen_row *rows; /* (n_vocab,) or NULL; after the codes */
};

/* One token to find, and the working memory for it. */
typedef struct {
    const float *activation;    /* (n_embd,) normed */
    const bnc_sampler *sampler; /* its penalty comes before the search */
    int64_t top;                /* how many of the best are wanted, at most BNC_SCREEN_MAX_TOP */

    void *x;                   /* (n_embd padded to stripes) bnc_screen_stripe: room for the activation of any kind */
    float *approx, *energy;    /* (n_vocab,) each logit is within approx +- factor * sqrt(energy), in units of scale */
    bnc_candidate *candidates; /* (n_vocab,) each thread fills the places of its own rows from their start */
    bnc_best *found;           /* (n_threads,) and how many those are */
    int64_t *n_scored;         /* (n_threads,) rows scored exactly before that, to find the threshold */
    bnc_candidate *best;       /* (n_threads + 1, BNC_SCREEN_BEST) */
    float scale;               /* x = X * scale */
    float length, rounding;    /* of x / scale, and of x / scale - X: what the proven widths are made of */
    float threshold;           /* no row below it is among the best */
} bnc_screen_memory;

/* What a kind of copy does its own way. */
typedef struct bnc_screen_copy {
    int op;                  /* the kernel that approximates */
    int64_t pad;             /* rows are padded to a multiple */
    int64_t pad_bytes;       /* that so many columns take */
    int64_t row_extra_bytes; /* beside the codes */
    void (*start)(bnc_screen *screen, uint64_t seed);
    /* row r, (n_columns,) floats, into the copy */
    void (*encode)(const bnc_screen *screen, int64_t r, const float *row);
    /* x (n_embd,) as integers X, as the kernel reads them, and memory->scale */
    void (*prepare)(const bnc_screen *screen, bnc_screen_memory *memory, const float *x);
    /* memory->approx and memory->energy of rows [begin, end) */
    void (*approximate)(const bnc_screen *screen, bnc_screen_memory *memory, int64_t begin, int64_t end);
} bnc_screen_copy;

extern const bnc_screen_copy bnc_screen_dithered, bnc_screen_proven;

/* The largest |X|: fits 16 bits with room for rounding. */
#define BNC_SCREEN_X_MAX 32000.0f

/* Rows that a thread scores first to find the threshold, and so the most that can be asked for. */
enum { BNC_SCREEN_BEST = 1024, BNC_SCREEN_SPARE = 8, BNC_SCREEN_MAX_TOP = BNC_SCREEN_BEST - BNC_SCREEN_SPARE };

/* Bytes that finding candidates reads of it, and that it takes. */
uint64_t bnc_screen_read_bytes(const bnc_screen *screen);

/* Called by all threads of a pool, for n tokens in one pass over the copy. After a barrier, every token among the
 * memory->top best of memory[i] is in one of the lists memory[i].found, scored exactly. */
void bnc_screen_find(const bnc_screen *screen, bnc_threads *threads, bnc_screen_memory *memory, int64_t n, int ith,
                     int nth);

#endif
