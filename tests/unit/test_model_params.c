/* What a model file says about itself: dimensions of real files, rotary frequencies against values
 * worked out by hand, and every refusal by name. */
#include <fcntl.h>
#include <math.h>

#include "unit/changed_model.h"

static void read_changed(const change *c, saf_model_params *p) {
    saf_gguf *g = NULL;
    write_changed(c);
    OK(saf_gguf_open(path, &g));
    OK(saf_model_params_read(g, p));
    saf_gguf_close(&g);
}

/* ---- tests ------------------------------------------------------------------------------------
 */

static void test_model_params_of_real_files(void **state) {
    static const struct {
        const char *file;
        saf_arch arch;
        int layers, width, heads, kv_heads, head_width, ff, vocab, context;
        bool bias, norm, tied;
        double base;
    } files[] = {
        {"jobs/models/stories260K.gguf", SAF_ARCH_LLAMA, 5, 64, 8, 4, 8, 172, 512, 512, false,
         false, false, 1e4},
        {"../shared/models/tiny-llama-Q4_K_M.gguf", SAF_ARCH_LLAMA, 3, 512, 8, 2, 64, 1280, 4352,
         4096, false, false, false, 5e5},
        {"../shared/models/tiny-qwen2-Q2_K.gguf", SAF_ARCH_QWEN2, 3, 256, 4, 1, 64, 768, 4122, 4096,
         true, false, true, 1e6},
        {"../shared/models/tiny-qwen2-BF16.gguf", SAF_ARCH_QWEN2, 3, 256, 4, 1, 64, 768, 4122, 4096,
         true, false, true, 1e6},
        {"../shared/models/tiny-qwen3-Q6_K.gguf", SAF_ARCH_QWEN3, 4, 256, 4, 2, 128, 768, 4122,
         4096, false, true, false, 1e6},
    };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *file = files[i].file;
        saf_gguf *g = NULL;
        saf_model_params p = {0};
        if (access(file, R_OK)) {
            print_message("# no %s on this machine\n", file);
            skip();
        }
        OK(saf_gguf_open(file, &g));
        OK(saf_model_params_read(g, &p));
        assert_int_equal(p.arch, files[i].arch);
        assert_int_equal(p.layers, files[i].layers);
        assert_int_equal(p.width, files[i].width);
        assert_int_equal(p.heads, files[i].heads);
        assert_int_equal(p.kv_heads, files[i].kv_heads);
        assert_int_equal(p.head_width, files[i].head_width);
        assert_int_equal(p.ff_width, files[i].ff);
        assert_int_equal(p.vocab, files[i].vocab);
        assert_int_equal(p.context, files[i].context);
        assert_int_equal(p.qkv_bias, files[i].bias);
        assert_int_equal(p.qk_norm, files[i].norm);
        assert_int_equal(p.tied, files[i].tied);
        bool llama = files[i].arch == SAF_ARCH_LLAMA;
        assert_int_equal(p.rope_pairs, llama ? SAF_ROPE_ADJACENT : SAF_ROPE_HALVES);
        assert_true(p.norm_eps == (llama ? 1e-5f : 1e-6f));
        assert_true(p.attention_scale == (float)(1 / sqrt(files[i].head_width)));
        assert_int_equal(p.rope_half, files[i].head_width / 2);
        assert_true(p.rope_scale == 1);
        for (int64_t k = 0; k < p.rope_half; k++) {
            double expected = pow(files[i].base, -2.0 * (double)k / files[i].head_width);
            assert_true(fabs(p.inv_freq[k] / expected - 1) < 1e-14);
        }
        saf_model_params_free(&p);
        assert_null(p.inv_freq);
        saf_gguf_close(&g);
    }
}

#define NEAR(value, expected) assert_true(fabs((value) / (expected)-1) < 1e-12)

static void test_model_params_rope_linear(void **state) {
    saf_model_params p = {0};
    (void)state;
    /* 10000^(-2i/8) / 2.5 */
    read_changed(&(change){.add = {{ADD_INT, "llama.rope.dimension_count", .number = 8},
                                   {ADD_STRING, "llama.rope.scaling.type", .text = "linear"},
                                   {ADD_FLOAT, "llama.rope.scaling.factor", .number = 2.5}}},
                 &p);
    assert_int_equal(p.rope_half, 4);
    NEAR(p.inv_freq[0], 0.4);
    NEAR(p.inv_freq[1], 0.04);
    NEAR(p.inv_freq[3], 0.0004);
    assert_true(p.rope_scale == 1);
    saf_model_params_free(&p);
    /* a factor alone, under its older name, and with a type of "none" */
    read_changed(&(change){.add = {{ADD_FLOAT, "llama.rope.scale_linear", .number = 4}}}, &p);
    NEAR(p.inv_freq[0], 0.25);
    saf_model_params_free(&p);
    read_changed(&(change){.add = {{ADD_STRING, "llama.rope.scaling.type", .text = "none"},
                                   {ADD_FLOAT, "llama.rope.scaling.factor", .number = 4}}},
                 &p);
    NEAR(p.inv_freq[0], 1.0);
    saf_model_params_free(&p);
    read_changed(&(change){.drop_key = "llama.rope.freq_base"}, &p);
    NEAR(p.inv_freq[4], 0.01); /* 10000^(-8/16) */
    saf_model_params_free(&p);
}

static void test_model_params_rope_factors(void **state) {
    static const float factors[8] = {1, 1, 2, 4, 8, 8, 16, 32};
    saf_model_params p = {0};
    (void)state;
    read_changed(
        &(change){
            .tensor = "rope_freqs.weight", .dtype = SAF_DTYPE_F32, .shape = {8}, .values = factors},
        &p);
    for (int i = 0; i < 8; i++) NEAR(p.inv_freq[i], pow(10000, -i / 8.0) / (double)factors[i]);
    saf_model_params_free(&p);
}

/* Expected values: 50 decimal digits, from the paper's formulae. Head width 64 and base 10000:
 * pairs up to 10 turn more than 32 times in 4096 positions, pairs from 23 less than once. */
static void test_model_params_rope_yarn(void **state) {
    static const struct {
        int i;
        double f;
    } expected[] = {{0, 1},
                    {1, 0.74989420933245587442},
                    {5, 0.23713737056616551735},
                    {9, 0.074989420933245579115},
                    {10, 0.056234132519034911446},
                    {11, 0.039736785900001021787},
                    {15, 0.0094885178827005742241},
                    {20, 0.0013378867023789296938},
                    {24, 0.0002500000000000000052},
                    {31, 3.3338035804083098845e-05}};
    saf_model_params p = {0};
    (void)state;
    saf_model_make_options o = {.arch = "llama",
                                .layers = 1,
                                .width = 64,
                                .heads = 1,
                                .kv_heads = 1,
                                .head_width = 64,
                                .ff_width = 32,
                                .context = 16384,
                                .dtype = SAF_DTYPE_F16};
    char saved[sizeof base_path], wide[sizeof base_path];
    snprintf(wide, sizeof wide, "%s/wide.gguf", folder);
    OK(saf_model_make(wide, &o));
    memcpy(saved, base_path, sizeof saved);
    memcpy(base_path, wide, sizeof wide);
    read_changed(
        &(change){.add = {{ADD_STRING, "llama.rope.scaling.type", .text = "yarn"},
                          {ADD_FLOAT, "llama.rope.scaling.factor", .number = 4},
                          {ADD_INT, "llama.rope.scaling.original_context_length", .number = 4096}}},
        &p);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        NEAR(p.inv_freq[expected[i].i], expected[i].f);
    NEAR(p.rope_scale, 1.1386294361119890619);
    saf_model_params_free(&p);
    /* every setting given: width 8, base 10^6, factor 8, other ends of the ramp, half of it */
    read_changed(
        &(change){.add = {{ADD_STRING, "llama.rope.scaling.type", .text = "yarn"},
                          {ADD_FLOAT, "llama.rope.scaling.factor", .number = 8},
                          {ADD_INT, "llama.rope.scaling.original_context_length", .number = 32768},
                          {ADD_INT, "llama.rope.dimension_count", .number = 8},
                          {ADD_FLOAT, "llama.rope.freq_base", .number = 1e6},
                          {ADD_FLOAT, "llama.rope.scaling.yarn_beta_fast", .number = 16},
                          {ADD_FLOAT, "llama.rope.scaling.yarn_beta_slow", .number = 2},
                          {ADD_FLOAT, "llama.rope.scaling.yarn_ext_factor", .number = 0.5}}},
        &p);
    assert_int_equal(p.rope_half, 4);
    NEAR(p.inv_freq[0], 0.5625);
    NEAR(p.inv_freq[1], 0.017787811838447135232);
    NEAR(p.inv_freq[2], 0.00034375);
    NEAR(p.inv_freq[3], 3.9528470752104744124e-06);
    NEAR(p.rope_scale, 1.2079441541679835928);
    saf_model_params_free(&p);
    /* attn_factor multiplies; without the ramp nothing else grows */
    read_changed(&(change){.add = {{ADD_STRING, "llama.rope.scaling.type", .text = "yarn"},
                                   {ADD_FLOAT, "llama.rope.scaling.factor", .number = 4},
                                   {ADD_FLOAT, "llama.rope.scaling.attn_factor", .number = 0.5},
                                   {ADD_FLOAT, "llama.rope.scaling.yarn_ext_factor", .number = 0}}},
                 &p);
    NEAR(p.inv_freq[0], 0.25);
    NEAR(p.rope_scale, 0.5);
    saf_model_params_free(&p);
    memcpy(base_path, saved, sizeof saved);
}

static void test_model_params_accepts_variants(void **state) {
    saf_model_params p = {0};
    (void)state;
    read_changed(&(change){.add = {{ADD_INTS, "llama.attention.head_count_kv", .number = 2},
                                   {ADD_INTS, "llama.feed_forward_length", .number = 96}}},
                 &p);
    assert_int_equal(p.kv_heads, 2);
    assert_int_equal(p.ff_width, 96);
    saf_model_params_free(&p);
    /* key_length and value_length follow from the width where they are absent */
    read_changed(&(change){.drop_key = "llama.attention.key_length"}, &p);
    assert_int_equal(p.head_width, 16);
    saf_model_params_free(&p);
    read_changed(&(change){.drop_key = "llama.attention.value_length"}, &p);
    assert_int_equal(p.head_width, 16);
    saf_model_params_free(&p);
    read_changed(&(change){.drop_key = "llama.rope.dimension_count"}, &p);
    assert_int_equal(p.rope_half, 8);
    saf_model_params_free(&p);
    read_changed(&(change){.drop_tensor = "output.weight"}, &p);
    assert_true(p.tied);
    saf_model_params_free(&p);
    read_changed(&(change){.tensor = "blk.1.attn_k.bias", .dtype = SAF_DTYPE_BF16, .shape = {32}},
                 &p);
    assert_true(p.qkv_bias);
    saf_model_params_free(&p);
    read_changed(&(change){.add = {{ADD_INT, "llama.expert_count", .number = 0},
                                   {ADD_INT, "llama.attention.sliding_window", .number = 256},
                                   {ADD_FLOAT, "llama.logit_scale", .number = 1},
                                   {ADD_FLOAT, "llama.attention.scale", .number = 0.125}}},
                 &p);
    assert_true(p.attention_scale == 0.125f);
    saf_model_params_free(&p);
    read_changed(&(change){.add = {{ADD_STRING, "general.name", .text = "a\x1B[31m\xFF\n"}}}, &p);
    assert_string_equal(p.name, "a [31m\xEF\xBF\xBD ");
    saf_model_params_free(&p);
    read_changed(&(change){.drop_key = "general.name"}, &p);
    assert_string_equal(p.name, "");
    saf_model_params_free(&p);
}

static void test_model_params_refusals(void **state) {
    static const struct {
        const char *message;
        change c;
    } table[] = {
        {"architecture \"gemma3\" is not supported; saf knows llama, qwen2, qwen3",
         {.add = {{ADD_STRING, "general.architecture", .text = "gemma3"}}}},
        {"\"general.architecture\" is missing", {.drop_key = "general.architecture"}},
        {"\"general.architecture\" is i64, expected string",
         {.add = {{ADD_INT, "general.architecture", .number = 1}}}},
        {"general.type is \"adapter\"", {.add = {{ADD_STRING, "general.type", .text = "adapter"}}}},
        {"\"llama.block_count\" is missing", {.drop_key = "llama.block_count"}},
        {"\"llama.context_length\" is missing", {.drop_key = "llama.context_length"}},
        {"\"llama.embedding_length\" is missing", {.drop_key = "llama.embedding_length"}},
        {"\"llama.feed_forward_length\" is missing", {.drop_key = "llama.feed_forward_length"}},
        {"\"llama.attention.head_count\" is missing", {.drop_key = "llama.attention.head_count"}},
        {"\"llama.attention.layer_norm_rms_epsilon\" is missing",
         {.drop_key = "llama.attention.layer_norm_rms_epsilon"}},
        {"\"llama.block_count\" is 0, expected 1 to",
         {.add = {{ADD_INT, "llama.block_count", .number = 0}}}},
        {"\"llama.block_count\" is -1", {.add = {{ADD_INT, "llama.block_count", .number = -1}}}},
        {"\"llama.block_count\" is 4611686018427387904, expected",
         {.add = {{ADD_INT, "llama.block_count", .number = 0x1p62}}}},
        {"\"blk.2.attn_norm.weight\" is missing",
         {.add = {{ADD_INT, "llama.block_count", .number = 3}}}},
        {"\"blk.1.attn_norm.weight\" is no part of llama with 1 layers",
         {.add = {{ADD_INT, "llama.block_count", .number = 1}}}},
        {"\"llama.block_count\" is string, expected an integer",
         {.add = {{ADD_STRING, "llama.block_count", .text = "2"}}}},
        {"\"llama.context_length\" is 2147483648",
         {.add = {{ADD_INT, "llama.context_length", .number = 0x1p31}}}},
        {"layer_norm_rms_epsilon\" is 0",
         {.add = {{ADD_FLOAT, "llama.attention.layer_norm_rms_epsilon", .number = 0}}}},
        {"layer_norm_rms_epsilon\" is nan",
         {.add = {{ADD_FLOAT, "llama.attention.layer_norm_rms_epsilon", .number = NAN}}}},
        {"4 heads cannot share 3 key-value heads evenly",
         {.add = {{ADD_INT, "llama.attention.head_count_kv", .number = 3}}}},
        {"\"llama.attention.head_count_kv\" is 8, expected 1 to 4",
         {.add = {{ADD_INT, "llama.attention.head_count_kv", .number = 8}}}},
        {"\"llama.attention.head_count_kv\" differs from layer to layer",
         {.add = {{ADD_INTS, "llama.attention.head_count_kv", .number = 1, .spread = 1}}}},
        {"\"llama.attention.key_length\" is 1024, expected 1 to 512",
         {.add = {{ADD_INT, "llama.attention.key_length", .number = 1024}}}},
        {"keys of 16 and values of 8 per head",
         {.add = {{ADD_INT, "llama.attention.value_length", .number = 8}}}},
        {"\"llama.rope.dimension_count\" is 32, expected 2 to 16",
         {.add = {{ADD_INT, "llama.rope.dimension_count", .number = 32}}}},
        {"7 rotary dimensions make no pairs",
         {.add = {{ADD_INT, "llama.rope.dimension_count", .number = 7}}}},
        {"rope scaling \"longrope\" is not supported; saf knows none, linear, yarn",
         {.add = {{ADD_STRING, "llama.rope.scaling.type", .text = "longrope"}}}},
        {"yarn_log_multiplier\" is not supported",
         {.add = {{ADD_FLOAT, "llama.rope.scaling.yarn_log_multiplier", .number = 0.1}}}},
        {"\"llama.rope.freq_base\" is 0",
         {.add = {{ADD_FLOAT, "llama.rope.freq_base", .number = 0}}}},
        {"\"llama.rope.freq_base\" is inf",
         {.add = {{ADD_FLOAT, "llama.rope.freq_base", .number = INFINITY}}}},
        {"\"llama.rope.scaling.factor\" is -1",
         {.add = {{ADD_FLOAT, "llama.rope.scaling.factor", .number = -1}}}},
        {"\"llama.rope.dimension_sections\": rotary positions of several axes",
         {.add = {{ADD_INTS, "llama.rope.dimension_sections", .number = 2}}}},
        {"\"llama.expert_count\": a mixture of experts is not supported",
         {.add = {{ADD_INT, "llama.expert_count", .number = 8}}}},
        {"\"llama.attention.sliding_window\": sliding-window attention is not supported",
         {.add = {{ADD_INT, "llama.attention.sliding_window", .number = 128}}}},
        {"\"llama.final_logit_softcapping\": soft-capping of logits is not supported",
         {.add = {{ADD_FLOAT, "llama.final_logit_softcapping", .number = 30}}}},
        {"\"llama.attn_logit_softcapping\": soft-capping of attention",
         {.add = {{ADD_FLOAT, "llama.attn_logit_softcapping", .number = 50}}}},
        {"\"llama.residual_scale\": a scale of the residual",
         {.add = {{ADD_FLOAT, "llama.residual_scale", .number = 0.5}}}},
        {"\"llama.attention.causal\": attention that is not causal",
         {.add = {{ADD_BOOL, "llama.attention.causal", .number = 0}}}},
        {"\"token_embd.weight\" is missing", {.drop_tensor = "token_embd.weight"}},
        {"\"output_norm.weight\" is missing", {.drop_tensor = "output_norm.weight"}},
        {"\"blk.1.ffn_down.weight\" is missing", {.drop_tensor = "blk.1.ffn_down.weight"}},
        {"the tokenizer has 257 tokens, but token_embd.weight 256 rows",
         {.tensor = "token_embd.weight", .dtype = SAF_DTYPE_F16, .shape = {64, 256}}},
        {"\"output.weight\" is 64 x 256 x 1 x 1, expected 64 x 257",
         {.tensor = "output.weight", .dtype = SAF_DTYPE_F16, .shape = {64, 256}}},
        {"\"blk.0.attn_k.weight\" is 32 x 64 x 1 x 1, expected 64 x 32",
         {.tensor = "blk.0.attn_k.weight", .dtype = SAF_DTYPE_F16, .shape = {32, 64}}},
        {"\"blk.0.ffn_norm.weight\" is 63 x 1 x 1 x 1, expected 64 x 1",
         {.tensor = "blk.0.ffn_norm.weight", .dtype = SAF_DTYPE_F32, .shape = {63}}},
        {"\"blk.0.ffn_norm.weight\" has type I32, expected F32, F16 or BF16",
         {.tensor = "blk.0.ffn_norm.weight", .dtype = SAF_DTYPE_I32, .shape = {64}}},
        {"\"blk.0.ffn_norm.weight\" has type Q8_0",
         {.tensor = "blk.0.ffn_norm.weight", .dtype = SAF_DTYPE_Q8_0, .shape = {64}}},
        {"\"blk.0.attn_q.weight\" has type F64, expected F32, F16, BF16, Q8_0",
         {.tensor = "blk.0.attn_q.weight", .dtype = SAF_DTYPE_F64, .shape = {64, 64}}},
        {"\"blk.0.attn_q_norm.weight\" is no part of llama",
         {.tensor = "blk.0.attn_q_norm.weight", .dtype = SAF_DTYPE_F32, .shape = {16}}},
        {"\"blk.0.attn_output.bias\" is no part of llama",
         {.tensor = "blk.0.attn_output.bias", .dtype = SAF_DTYPE_F32, .shape = {64}}},
        {"\"blk.0.ffn_gate_inp.weight\" is no part",
         {.tensor = "blk.0.ffn_gate_inp.weight", .dtype = SAF_DTYPE_F32, .shape = {64, 8}}},
        {"\"rope_freqs.weight\" is F32 with rows of 4, expected F32 and one row of 8",
         {.tensor = "rope_freqs.weight", .dtype = SAF_DTYPE_F32, .shape = {4}}},
        {"\"rope_freqs.weight\" is F16",
         {.tensor = "rope_freqs.weight", .dtype = SAF_DTYPE_F16, .shape = {8}}},
        {"\"rope_freqs.weight\": element 0 is 0, expected a positive divisor",
         {.tensor = "rope_freqs.weight", .dtype = SAF_DTYPE_F32, .shape = {8}}},
    };
    int failures = 0;
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        saf_gguf *g = NULL;
        saf_model_params p = {0};
        write_changed(&table[i].c);
        OK(saf_gguf_open(path, &g));
        saf_fail(SAF_FAILED, "no message");
        saf_status st = saf_model_params_read(g, &p);
        if (st != SAF_BAD_INPUT || !strstr(saf_error_text(), table[i].message) ||
            !strstr(saf_error_text(), path)) {
            print_error("status %d, message \"%s\", expected \"%s\"\n", st, saf_error_text(),
                        table[i].message);
            failures++;
        }
        assert_null(p.inv_freq);
        saf_model_params_free(&p);
        saf_gguf_close(&g);
    }
    assert_int_equal(failures, 0);
}

static void test_model_params_qwen2_needs_biases(void **state) {
    saf_model_make_options o = {.arch = "qwen2",
                                .layers = 1,
                                .width = 64,
                                .heads = 4,
                                .kv_heads = 2,
                                .head_width = 16,
                                .ff_width = 96,
                                .dtype = SAF_DTYPE_F16};
    char saved[sizeof base_path];
    saf_gguf *g = NULL;
    saf_model_params p = {0};
    (void)state;
    memcpy(saved, base_path, sizeof saved);
    snprintf(base_path, sizeof base_path, "%s/qwen2.gguf", folder);
    OK(saf_model_make(base_path, &o));
    write_changed(&(change){.drop_tensor = "blk.0.attn_v.bias"});
    memcpy(base_path, saved, sizeof saved);
    OK(saf_gguf_open(path, &g));
    assert_int_equal(saf_model_params_read(g, &p), SAF_BAD_INPUT);
    assert_non_null(strstr(saf_error_text(), "\"blk.0.attn_v.bias\" is missing"));
    saf_gguf_close(&g);
}

/* Flipped bytes of a header that still opens: never a crash, always a verdict. */
static void test_model_params_random_byte_flips(void **state) {
    saf_buf whole = {0};
    saf_gguf *g = NULL;
    int accepted = 0, refused = 0;
    (void)state;
    OK(saf_file_read(base_path, 1 << 24, &whole));
    OK(saf_gguf_open(base_path, &g));
    size_t header = (size_t)saf_gguf_tensor_at(g, 0)->offset;
    saf_gguf_close(&g);
    write_changed(&(change){0});
    int fd = open(path, O_RDWR | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, whole.data, whole.len, 0), whole.len);
    for (uint64_t i = 0; i < 10000; i++) {
        uint32_t r[4];
        saf_model_params p = {0};
        saf_philox(2, 0, i, r);
        size_t at = r[0] % header;
        uint8_t original = (uint8_t)whole.data[at],
                changed = (uint8_t)(original ^ (1 + r[1] % 255));
        assert_int_equal(pwrite(fd, &changed, 1, (off_t)at), 1);
        saf_status st = saf_gguf_open(path, &g);
        if (st == SAF_OK) st = saf_model_params_read(g, &p);
        if (st == SAF_OK) {
            for (int64_t k = 0; k < p.rope_half; k++) assert_true(isfinite(p.inv_freq[k]));
            accepted++;
        } else {
            assert_int_equal(st, SAF_BAD_INPUT);
            refused++;
        }
        saf_model_params_free(&p);
        saf_gguf_close(&g);
        assert_int_equal(pwrite(fd, &original, 1, (off_t)at), 1);
    }
    close(fd);
    saf_buf_free(&whole);
    assert_true(accepted > 100 && refused > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_params_of_real_files),
        cmocka_unit_test(test_model_params_rope_linear),
        cmocka_unit_test(test_model_params_rope_factors),
        cmocka_unit_test(test_model_params_rope_yarn),
        cmocka_unit_test(test_model_params_accepts_variants),
        cmocka_unit_test(test_model_params_refusals),
        cmocka_unit_test(test_model_params_qwen2_needs_biases),
        cmocka_unit_test(test_model_params_random_byte_flips),
    };
    return cmocka_run_group_tests(tests, make_models, remove_folder);
}
