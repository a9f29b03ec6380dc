/* Suite comm: what messages between ranks cost. */
#include "job/bench/suites.h"

saf_status saf__suite_comm(saf__suites *w) {
    saf_status st = SAF_OK;
    if (w->s->ranks == 1) {
        saf_log(SAF_LOG_WARNING, "suite comm: one rank has nobody to talk to");
        return SAF_OK;
    }
    SAF_TRY(saf__suite_pairs(w));
    SAF_TRY(saf__suite_collectives(w));
    SAF_TRY(saf__suite_tensors(w));
out:
    return st;
}
