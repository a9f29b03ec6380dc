/* A folder of its own for each test of checkpoints, and the name of the results file in it. */
#ifndef TESTS_CHECKPOINT_FOLDER_H
#define TESTS_CHECKPOINT_FOLDER_H

#include "checkpoint_fixture.h"

static char folder[256], output[300];

static inline int checkpoint_set_up(void **state) {
    (void)state;
    strcpy(folder, fixture_folder());
    snprintf(output, sizeof output, "%s/r.h5", folder);
    saf_log_setup(SAF_LOG_ERROR, -1);
    return 0;
}

static inline int checkpoint_tear_down(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#endif
