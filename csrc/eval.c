/*
 * eval.c - requests to passes over the weights: the one call that runs sessions forward.
 */
#include "forward.h"

/* ---- what is asked for, checked before anything is computed ---- */

static bnc_status check_tokens(const bnc_request *r, int64_t n_vocab, bnc_error *err) {
    const bnc_session *s = r->session;
    if (r->n_tokens < 1)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "at least one token is needed");
    for (int64_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= n_vocab)
            return bnc_error_set(err, BNC_ERR_ARGUMENT, "token %d at index %lld is not in the vocabulary: 0 to %lld",
                                 (int)r->tokens[i], (long long)i, (long long)n_vocab - 1);
    if (r->n_tokens > s->n_ctx - s->n_past)
        return bnc_error_set(err, BNC_ERR_CONTEXT, "%lld tokens after %lld do not fit a context of %lld",
                             (long long)r->n_tokens, (long long)s->n_past, (long long)s->n_ctx);
    return BNC_OK;
}

static bnc_status check(const bnc_workspace *ws, const bnc_request *requests, int64_t n, bnc_error *err) {
    const int64_t n_vocab = ws->model->config.n_vocab;
    if (n < 1 || n > ws->n_seq)
        return bnc_error_set(err, BNC_ERR_ARGUMENT, "1 to %lld sessions can be evaluated together, not %lld",
                             (long long)ws->n_seq, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const bnc_request *r = &requests[i];
        if (r->session->workspace != ws)
            return bnc_error_set(err, BNC_ERR_ARGUMENT, "the session of request %lld is of another workspace",
                                 (long long)i);
        for (int64_t j = 0; j < i; j++)
            if (requests[j].session == r->session)
                return bnc_error_set(err, BNC_ERR_ARGUMENT, "requests %lld and %lld are of the same session",
                                     (long long)j, (long long)i);
        if (r->sampler && r->sampler->n_vocab != n_vocab)
            return bnc_error_set(err, BNC_ERR_ARGUMENT, "the sampler was made for another vocabulary");
        BNC_TRY(check_tokens(r, n_vocab, err));
    }
    return BNC_OK;
}

/* ---- passes ---- */

/* Rows that wait for the next pass, and how many of them draw from logits that nobody else asked for. */
typedef struct {
    bnc_workspace *ws;
    int64_t n_rows, n_logits;
} queue;

/* The next token from the candidates that each thread found. */
static int32_t draw_from_candidates(const bnc_workspace *ws, const bnc_row *row) {
    bnc_best best = bnc_sampler_begin(row->sampler);
    for (int i = 0; i < bnc_threads_count(ws->threads); i++) {
        const bnc_best *found = &ws->screening[row->seat].found[i];
        for (int64_t j = 0; j < found->n; j++)
            bnc_best_add(&best, found->at[j]);
    }
    return bnc_sampler_draw(row->sampler, &best);
}

static void run(queue *q) {
    bnc_forward(q->ws, q->n_rows);
    for (int64_t t = 0; t < q->n_rows; t++) {
        const bnc_row *row = &q->ws->row[t];
        row->session->n_past = row->pos + 1;
        if (row->sampler)
            *row->drawn =
                row->screened ? draw_from_candidates(q->ws, row) : bnc_sampler_sample(row->sampler, row->logits);
    }
    q->n_rows = q->n_logits = 0;
}

/* Whether the screen can find what this sampler draws from. */
static bool can_screen(const bnc_workspace *ws, const bnc_sampler *sampler) {
    const int64_t top = bnc_sampler_top(sampler);
    return ws->screen && top && top <= BNC_SCREEN_MAX_TOP;
}

/* What is wanted after token i of a request at position pos. */
static bnc_row make_row(queue *q, bnc_request *r, int64_t i, int64_t pos) {
    const int64_t n_vocab = q->ws->model->config.n_vocab;
    const bool last = i == r->n_tokens - 1;
    bnc_row row = {.session = r->session, .pos = pos, .token = r->tokens[i]};
    if (r->logits && (last || r->all_logits))
        row.logits = r->logits + (r->all_logits ? i * n_vocab : 0);
    if (last && r->sampler) {
        row.sampler = r->sampler;
        row.drawn = &r->drawn;
        row.screened = !row.logits && can_screen(q->ws, r->sampler);
        if (!row.logits && !row.screened)
            row.logits = q->ws->logits + q->n_logits++ * n_vocab;
    }
    return row;
}

bnc_status bnc_eval(bnc_workspace *workspace, bnc_request *requests, int64_t n_requests, bnc_error *err) {
    BNC_TRY(bnc_workspace_enter(workspace, err));
    const bnc_status status = check(workspace, requests, n_requests, err);
    if (status == BNC_OK) {
        queue q = {.ws = workspace};
        workspace->reads = (bnc_reads){0};
        for (int64_t k = 0; k < n_requests; k++) {
            const int64_t first = requests[k].session->n_past; /* passes move it on */
            for (int64_t i = 0; i < requests[k].n_tokens; i++) {
                workspace->row[q.n_rows++] = make_row(&q, &requests[k], i, first + i);
                if (q.n_rows == workspace->n_batch)
                    run(&q);
            }
        }
        if (q.n_rows)
            run(&q);
    }
    bnc_workspace_leave(workspace);
    return status;
}
