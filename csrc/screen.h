/*
 * screen.h - the few rows of the head that can hold the next token, found without reading the head.
 *
 * The head is the largest matrix of a model and most of its products are thrown away. A 4-bit copy, 0.28 of an F16 head's
 * bytes, gives every logit within a bound; rows whose upper bound stays below the k-th best exact logit cannot be among
 * the k best; the others are computed exactly, from the file. The tokens are those of the whole exact head.
 *
 * The bound. Code c of weight w in a block with step d is round(w / d + 7.5 + u), and stands for d (c - 7.5 - u), where u is
 * uniform in [-1/2, 1/2), drawn once a column from a secret seed, shared by all rows (subtractive dither: Roberts 1962, Schuchman 1964). For a
 * fixed row the error of weight i is then d e_i with e_i uniform in [-1/2, 1/2) and independent over columns, whatever the
 * weights are. A uniform variable is strictly sub-Gaussian (its moment generating function is at most that of a normal
 * one with its own variance, 1/12), so for an activation x that does not depend on u,
 *
 *     P(|logit - approximation| > t sqrt(sum of d^2 x_i^2)) <= 2 exp(-6 t^2).
 *
 * Over n_rows rows, by the union bound, all hold with probability 1 - p for t = sqrt(ln(2 n_rows / p) / 6); p = 1e-12 a token.
 * x does not depend on u as long as the tokens are those of the exact head, which is what holds.
 *
 * What rounding adds is worked out in screen.c.
 */
#ifndef BNC_SCREEN_H
#define BNC_SCREEN_H

#include "model.h"
#include "sampler.h"
#include "threads.h"

struct bnc_screen {
    const bnc_model *model;
    int64_t n_stripes;
    int64_t row_bytes;
    float factor;   /* t (1 + SLACK) */
    float *dither;  /* (n_stripes, 512) u of each column */
    uint8_t *codes; /* (n_vocab, row_bytes) */
};

/* Working memory of one session. */
typedef struct {
    bnc_screen_stripe *x;      /* (n_stripes,) the activation */
    float *approx, *energy;    /* (n_vocab,) each logit is within approx +- factor * sqrt(energy), in units of scale */
    bnc_candidate *candidates; /* (n_vocab,) each thread fills the places of its own rows from their start */
    bnc_best *found;           /* (n_threads,) and how many those are */
    int64_t *n_scored;         /* (n_threads,) rows scored exactly before that, to find the threshold */
    bnc_candidate *best;       /* (n_threads + 1, BNC_SCREEN_BEST) */
    float scale;               /* x = X * scale */
    float threshold;           /* no row below it is among the best */
} bnc_screen_memory;

/* Rows that a thread scores first to find the threshold, and so the most that can be asked for. */
enum { BNC_SCREEN_BEST = 1024, BNC_SCREEN_SPARE = 8, BNC_SCREEN_MAX_TOP = BNC_SCREEN_BEST - BNC_SCREEN_SPARE };

/* Called by all threads of a pool: x (n_embd,) is the normed activation. After a barrier, every token among the top best
 * (at most BNC_SCREEN_MAX_TOP), after the sampler's penalty, is in one of the lists memory->found, scored exactly. */
void bnc_screen_find(const bnc_screen *screen, bnc_threads *threads, bnc_screen_memory *memory, const float *x,
                     int64_t top, const bnc_sampler *sampler, int ith, int nth);

#endif
