/* Not a test: trains a tiny model for some steps, and writes what a test in Python compares with
 * float64 into a folder: before each step the parameters, the tokens and how many count; after it
 * the gradient and the report; at last the parameters and moments.
 *   train_steps FOLDER llama|qwen3 tied|untied STEPS CONTEXT */
#include <stdio.h>
#include <stdlib.h>

#include "mpi/train_fixture.h"

static void must(saf_status st) {
    if (st == SAF_OK) return;
    fprintf(stderr, "train_steps: %s\n", saf_error_text());
    exit(1);
}

static void put(const char *folder, const char *name, int64_t step, const void *data, size_t size,
                int64_t n) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s%lld", folder, name, (long long)step);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, size, (size_t)n, f) != (size_t)n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void put_tokens(const char *folder, saf_train_shape *shape, int64_t step, int64_t batch) {
    int64_t n = shape->context + 1;
    int32_t *ids = NULL;
    int64_t *counted = NULL;
    must(saf_alloc((size_t)(batch * n), sizeof *ids, &ids));
    must(saf_alloc((size_t)batch, sizeof *counted, &counted));
    for (int64_t s = 0; s < batch; s++) {
        counted[s] = shape->context;
        must(train_fixture_read(shape, step, s, ids + s * n, &counted[s]));
    }
    put(folder, "ids", step, ids, sizeof *ids, batch * n);
    put(folder, "counted", step, counted, sizeof *counted, batch);
    saf_free(&ids);
    saf_free(&counted);
}

static void train(saf_comm *world, const char *folder, saf_train_shape *shape, int64_t steps) {
    saf_train *t = NULL;
    saf_train_settings settings = train_fixture_settings(steps);
    saf_train_report r = {0};
    int64_t n = saf_train_parameters(shape);
    float *moment = NULL;
    must(saf_train_new(world, shape, &settings, &t));
    for (int64_t step = 0; step < steps; step++) {
        put(folder, "values", step, saf_train_values(t), sizeof(float), n);
        put_tokens(folder, shape, step, settings.batch);
        must(saf_train_step(t, train_fixture_read, shape, &r));
        put(folder, "gradient", step, saf_train_gradient(t), sizeof(float), n);
        printf("step %lld %.17g %.17g %.17g %lld\n", (long long)r.step, r.loss, r.rate,
               r.gradient_norm, (long long)r.tokens);
    }
    put(folder, "values", steps, saf_train_values(t), sizeof(float), n);
    must(saf_alloc((size_t)n, sizeof *moment, &moment));
    must(saf_train_state_get(t, SAF_TRAIN_MOMENT1, (saf_span){0, n}, moment));
    put(folder, "m", steps, moment, sizeof *moment, n);
    must(saf_train_state_get(t, SAF_TRAIN_MOMENT2, (saf_span){0, n}, moment));
    put(folder, "v", steps, moment, sizeof *moment, n);
    saf_free(&moment);
    saf_train_free(&t);
}

int main(int argc, char **argv) {
    saf_comm *world = NULL;
    saf_train_tensor *tensors = NULL;
    int64_t n = 0;
    must(saf_comm_start(&argc, &argv, &world));
    if (argc != 6) {
        fprintf(stderr, "train_steps FOLDER llama|qwen3 tied|untied STEPS CONTEXT\n");
        return 2;
    }
    must(saf_kernels_init(NULL));
    saf_train_shape shape =
        train_fixture_shape(strcmp(argv[2], "qwen3") == 0 ? SAF_ARCH_QWEN3 : SAF_ARCH_LLAMA,
                            strcmp(argv[3], "tied") == 0, strtoll(argv[5], NULL, 10));
    must(saf_train_tensors(&shape, &tensors, &n));
    for (int64_t i = 0; i < n; i++)
        printf("tensor %s %lld %lld %lld\n", tensors[i].name, (long long)tensors[i].cols,
               (long long)tensors[i].rows, (long long)tensors[i].offset);
    train(world, argv[1], &shape, strtoll(argv[4], NULL, 10));
    saf_free(&tensors);
    saf_comm_stop(&world);
    return 0;
}
