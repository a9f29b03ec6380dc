#!/usr/bin/env python3
"""Writes the seeds that are model files, or made of them: seeds.py FOLDER makes FOLDER/TARGET/*.

They are as small as they can be and still right, so that most of what a mutation does to one is
the only thing wrong with it. Seeds that are text lie in corpus/ as they are.
"""
import pathlib
import struct
import sys

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "q4_k": (12, 256, 144),
         "q6_k": (14, 256, 210)}


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def value(kind, v):
    if kind == STRING:
        return text(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<B", U64: "<Q", 0: "<B", 1: "<b", 2: "<H",
                        3: "<h", 11: "<q", 12: "<d"}[kind], v)


def key(name, kind, v):
    if isinstance(v, list):
        head = struct.pack("<IIQ", ARRAY, kind, len(v))
        return text(name) + head + b"".join(value(kind, x) for x in v)
    return text(name) + struct.pack("<I", kind) + value(kind, v)


def gguf(keys, tensors=(), align=32, fill=b"\0", version=3):
    """tensors: (name, type, shape)"""
    infos, data = b"", b""
    for name, kind, shape in tensors:
        number, block, size = TYPES[kind]
        elements = 1
        for d in shape:
            elements *= d
        data += b"\0" * (-len(data) % align)
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        infos += struct.pack("<IQ", number, len(data))
        data += (fill * (elements // block * size))[:elements // block * size]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + infos
    return head + (b"\0" * (-len(head) % align) + data if tensors else b"")


def every_kind():
    return [key(f"k.{kind}", kind, v) for kind, v in
            ((0, 1), (1, -1), (2, 2), (3, -2), (U32, 3), (I32, -3), (F32, 1.5), (BOOL, 1), (STRING, "text"),
             (U64, 1 << 40), (11, -1), (12, 0.5))] + [
        key("a.strings", STRING, ["a", "", "\u4e2d"]), key("a.floats", F32, [1.0, 2.0]),
        key("a.ints", I32, [1, 2, 3]), key("a.bools", BOOL, [0, 1])]


def llama_vocab(n=0, bytes_too=True):
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256) if bytes_too]
    kinds = [2, 3, 3] + [6] * 256 * bytes_too
    plain = ["\u2581", "a", "b", "ab", "\u2581a", "aba", "<|x|>", "\u4e2d"]
    tokens += plain
    kinds += [1] * 6 + [4, 1]
    while len(tokens) < n:
        tokens.append(f"t{len(tokens)}")
        kinds.append(1)
    return [key("tokenizer.ggml.model", STRING, "llama"), key("tokenizer.ggml.tokens", STRING, tokens),
            key("tokenizer.ggml.scores", F32, [-float(i) for i in range(len(tokens))]),
            key("tokenizer.ggml.token_type", I32, kinds), key("tokenizer.ggml.bos_token_id", U32, 1),
            key("tokenizer.ggml.eos_token_id", U32, 2), key("tokenizer.ggml.unknown_token_id", U32, 0)]


def gpt2_vocab(pre="default", few=False):
    chars = [chr(b) for b in range(33, 127)]
    chars += [chr(256 + i) for i in range(0 if few else 33)] + [chr(c) for c in range(0xA1, 0xA1 if few else 0x100)]
    if few:
        chars = ["a", "b", "\u0120", "1", "<"]
    merged = ["ab", "\u0120a", "\u0120ab", "aba", "abab"]
    tokens = chars + merged + ["<|im_start|>", "<|im_end|>", "<|tool|>"]
    kinds = [1] * (len(chars) + len(merged)) + [3, 3, 4]
    return [key("tokenizer.ggml.model", STRING, "gpt2"), key("tokenizer.ggml.pre", STRING, pre),
            key("tokenizer.ggml.tokens", STRING, tokens), key("tokenizer.ggml.token_type", I32, kinds),
            key("tokenizer.ggml.merges", STRING, ["a b", "\u0120 a", "\u0120a b", "ab a", "ab ab", "x y"]),
            key("tokenizer.ggml.eos_token_id", U32, len(tokens) - 2),
            key("tokenizer.chat_template", STRING, "{{ '<|im_start|>' + role }}")]


def model(arch="llama", layers=1, d=32, h=2, hkv=1, c=16, f=32, v=8, kind="f32", tied=True, bias=False,
          extra=(), rope=False, with_vocab=False, fill=b"\0"):
    keys = [key("general.architecture", STRING, arch), key("general.name", STRING, "seed"),
            key(f"{arch}.context_length", U32, 512), key(f"{arch}.block_count", U32, layers),
            key(f"{arch}.embedding_length", U32, d), key(f"{arch}.feed_forward_length", U32, f),
            key(f"{arch}.attention.head_count", U32, h), key(f"{arch}.attention.head_count_kv", U32, hkv),
            key(f"{arch}.attention.key_length", U32, c), key(f"{arch}.attention.value_length", U32, c),
            key(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5), *extra]
    if with_vocab:
        keys += llama_vocab(v, False)
    q, kv = h * c, hkv * c
    tensors = [("token_embd.weight", kind, (d, v)), ("output_norm.weight", "f32", (d,))]
    if not tied:
        tensors.append(("output.weight", kind, (d, v)))
    if rope:
        tensors.append(("rope_freqs.weight", "f32", (c // 2,)))
    for i in range(layers):
        for name, shape in (("attn_norm", (d,)), ("attn_q", (d, q)), ("attn_k", (d, kv)), ("attn_v", (d, kv)),
                            ("attn_output", (q, d)), ("ffn_norm", (d,)), ("ffn_gate", (d, f)), ("ffn_up", (d, f)),
                            ("ffn_down", (f, d))):
            whole = len(shape) > 1 and shape[0] % TYPES[kind][1] == 0
            tensors.append((f"blk.{i}.{name}.weight", kind if whole else "f32", shape))
        if arch == "qwen3":
            tensors += [(f"blk.{i}.attn_{n}_norm.weight", "f32", (c,)) for n in "qk"]
        if bias or arch == "qwen2":
            tensors += [(f"blk.{i}.attn_{n}.bias", "f32", (rows,)) for n, rows in (("q", q), ("k", kv), ("v", kv))]
    return gguf(keys, tensors, fill=fill)


def yarn(arch):
    return [key(f"{arch}.rope.scaling.type", STRING, "yarn"), key(f"{arch}.rope.scaling.factor", F32, 4.0),
            key(f"{arch}.rope.scaling.original_context_length", U32, 128),
            key(f"{arch}.rope.freq_base", F32, 1e6)]


def models():
    ones = struct.pack("<f", 0.25)
    yield model(d=4, h=2, hkv=1, c=2, f=4, v=3, fill=ones)
    yield model(d=4, h=1, hkv=1, c=4, f=3, v=5, tied=False, rope=True, fill=struct.pack("<f", 1.0))
    yield model("qwen2", 2, 4, 2, 2, 2, 5, 3, fill=ones, extra=yarn("qwen2"))
    yield model("qwen3", 1, 8, 2, 1, 6, 4, 3, fill=ones, kind="f16")
    yield model("llama", 1, 32, 2, 1, 16, 32, 4, kind="q8_0", fill=b"\1\2")
    yield model("qwen3", 1, 32, 1, 1, 32, 32, 4, kind="q4_0", fill=b"\1\2\3", tied=False)
    yield model("llama", 1, 256, 1, 1, 2, 1, 2, kind="q4_k", fill=b"\1\2\3")
    yield model(d=4, h=2, hkv=1, c=2, f=4, v=11, fill=ones, with_vocab=True,
                extra=[key("llama.rope.dimension_count", U32, 2), key("llama.rope.scale_linear", F32, 2.0)])


def splits():
    def part(no, count, tensors, more=()):
        return gguf([key("split.no", 2, no), key("split.count", 2, count), *more], tensors)

    one, two, three = [("a", "f32", (4,))], [("b", "f32", (2, 2)), ("c", "f16", (4,))], [("d", "q8_0", (32,))]
    first = part(0, 3, one, [key("split.tensors.count", I32, 4), *every_kind()])
    yield [first, part(1, 3, two), part(2, 3, three)]
    yield [part(0, 3, []), part(1, 3, two), part(2, 3, [("rope_freqs.weight", "f32", (2,))])]


def image(*parts):
    head = struct.pack("<QQQ", 0x31474D4946415347, len(parts), len(parts))
    sizes = b"".join(struct.pack("<Q", len(p)) for p in parts)
    extents = b"".join(struct.pack("<QQQ", i, 0, len(p)) for i, p in enumerate(parts))
    return head + sizes + extents + b"".join(parts)


def checkpoints():
    """Changes of a good set of files (fuzz_checkpoint.c): none, and each kind of each file."""
    def record(file, what, which, how=0, value=0):
        return struct.pack("<4BQ", file, what, which, how, value & (1 << 64) - 1)

    yield from (bytes([flags]) for flags in (0, 1, 2, 3, 4, 18, 34))
    yield bytes([8]) + record(0, 6, 0, 0, 700)
    numbers = (0, 1, 2, 1 << 31, 1 << 40, (1 << 63) - 1, -1)
    for file, attributes, objects in ((0, 11, 23), (1, 4, 3), (3, 5, 16)):
        for which in range(attributes):
            for what, how, value in ((0, 0, 0), (1, 0, 3), (2, 0, 0x7FF8 << 48), (3, 5, 0x41424344), (4, 8, 1)):
                yield b"\2" + record(file, what, which, how, value)
        for which in range(objects):
            for what, how, value in ((5, 0, 0), (7, 0, 5), (7, 3, 2 << 24 | 3), (7, 0x41, 4), (7, 0, 30 << 8 | 1),
                                     (8, 3, 0x41424344), (9, 0, 1), (9, 4, 0), (10, 3, 0), (11, 0, 1), (11, 1, 1)):
                yield bytes([34 if file else 2]) + record(file, what, which, how, value)
            for value in numbers:
                yield b"\2" + record(file, 6, which, 1, value)


def seeds():
    files = [gguf(every_kind()), gguf(every_kind(), [("t", "f32", (3,)), ("u", "q8_0", (32, 2)), ("v", "q4_k", (256,))]),
             gguf([key("general.alignment", U32, 64)], [("t", "f16", (2, 2, 2, 2)), ("u", "f32", (1,))], 64, version=2),
             model(d=4, h=2, hkv=1, c=2, f=4, v=3)]
    yield from (("gguf", f) for f in files)
    yield from (("image", image(f)) for f in files[:3])
    yield from (("image", image(*parts)) for parts in splits())
    yield from (("split", b"".join(struct.pack("<I", len(p)) + p for p in parts)) for parts in splits())
    yield from (("model", m) for m in models())
    words = "ab a aba <|im_start|>\u4e2d ab1 don't\n\n  <|x|> 1234 \u00e9".encode()
    vocabularies = [llama_vocab(), llama_vocab(0, False), gpt2_vocab(), *(
        gpt2_vocab(pre, True) for pre in ("llama-bpe", "qwen2", "gpt-2", "tekken", "deepseek-llm", "smollm"))]
    for keys in vocabularies:
        yield "tokenizer", gguf(keys) + words + struct.pack("<H", len(words))


    yield from (("checkpoint", script) for script in checkpoints())


def main():
    numbers = {}
    for target, data in seeds():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        numbers[target] = numbers.get(target, 0) + 1
        (folder / f"seed-{numbers[target]}").write_bytes(data)


main()
