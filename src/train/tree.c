/* The binary tree in which the gradients of micro-batches add up, inside of a rank: partial sums
 * that wait for their neighbour, as the ones of a binary counter. */
#include "train/train.h"

saf_span saf__rank_share(int64_t n, int ranks, int rank) {
    /* as n * rank / ranks, without its overflow */
    int64_t each = n / ranks, more = n % ranks;
    return (saf_span){each * rank + more * rank / ranks,
                      each * (rank + 1) + more * (rank + 1) / ranks};
}

int saf__nodes_add(saf__node *nodes, int n, int64_t index, int *merges) {
    nodes[n++] = (saf__node){0, index};
    *merges = 0;
    while (n > 1 && nodes[n - 2].level == nodes[n - 1].level && nodes[n - 2].index % 2 == 0 &&
           nodes[n - 1].index == nodes[n - 2].index + 1) {
        nodes[n - 2] = (saf__node){nodes[n - 2].level + 1, nodes[n - 2].index / 2};
        n--;
        (*merges)++;
    }
    return n;
}

int saf__nodes_of(saf_span range, saf__node nodes[SAF__NODES], int *most) {
    int n = 0, merges;
    *most = 0;
    for (int64_t i = range.begin; i < range.end; i++) {
        if (n + 1 > *most) *most = n + 1;
        n = saf__nodes_add(nodes, n, i, &merges);
    }
    return n;
}
