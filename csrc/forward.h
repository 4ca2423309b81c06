/*
 * forward.h - the transformer on the rows of a workspace.
 */
#ifndef BNC_FORWARD_H
#define BNC_FORWARD_H

#include "session.h"

/* Evaluate workspace->row[0, n_rows): valid tokens; those of the same session at consecutive positions in ascending order.
 * Afterwards logits are where rows want them; the tokens that row->sampler may draw of a screened row are in
 * screening[row->seat]. Adds to workspace->reads. */
void bnc_forward(bnc_workspace *workspace, int64_t n_rows);

#endif
