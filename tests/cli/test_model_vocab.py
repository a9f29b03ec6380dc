"""saf model vocab: its merges against a trainer of byte-pair encoding written here, its ids against an
encoder written here, every text there and back, errors."""
import collections
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from gguf import Reader  # noqa: E402
from saftest import ROOT, SAF, SHARED, Tap, saf, scratch  # noqa: E402

tap = Tap()
END = "<|endoftext|>"
# GPT-2's rule for texts without numbers that are not digits.
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
ODD = "aaaa aaaa aaa aa bananana na\r\n\t  x  \n\nmíša žlutý кот 猫猫 🙂🙂🙂 can't WE'LL _x_ 12 345 e\u0301e\u0301\n"


def words_of(text):
    return [w.encode() for part in text.split(END) for w in WORDS.findall(part)]


def merge(symbols, left, right, made):
    out, i = [], 0
    while i < len(symbols):
        if symbols[i:i + 2] == [left, right]:
            out.append(made)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def learn(texts, n):
    """As simple as can be: everything is counted anew for each merge."""
    counts = collections.Counter(w for t in texts for w in words_of(t))
    words = [(list(w), c) for w, c in counts.items()]
    merges = []
    while len(merges) < n:
        pairs = collections.Counter()
        for symbols, count in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda p: (-pairs[p], p), default=None)
        if best is None or pairs[best] < 2:
            break
        made = 256 + len(merges)
        merges.append(best)
        words = [(merge(s, *best, made) if best[0] in s else s, c) for s, c in words]
    return merges


def encode(text, merges):
    out = []
    for word in words_of(text):
        symbols = list(word)
        for i, pair in enumerate(merges):
            symbols = merge(symbols, *pair, 256 + i)
        out += symbols
    return out


def characters():
    """GPT-2's character of each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def write(folder, name, data):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def text_of(vocab, idfile, *more):
    """As bytes: ends of lines are as they are."""
    return subprocess.run([SAF, "model", "text", vocab, "--file", idfile, *more], stdout=subprocess.PIPE,
                          timeout=60).stdout


def check_learnt(folder):
    texts = [open(os.path.join(ROOT, "doc", name), encoding="utf-8").read()[:20000]
             for name in ("design.md", "numbers.md")] + [ODD + END + ODD + "🙂🙂"]
    files = [write(folder, f"text{i}", t.encode()) for i, t in enumerate(texts)]
    out = os.path.join(folder, "v.gguf")
    run = saf("model", "vocab", out, "--size", 257 + 300, *files)
    if not tap.ok(run.returncode == 0, "a vocabulary of 557", run.stderr):
        return
    merges, reader = learn(texts, 300), Reader(out)
    chars = characters()
    spelt = [chars[b] for b in range(256)]
    for left, right in merges:
        spelt.append(spelt[left] + spelt[right])
    lines = [f"{spelt[left]} {spelt[right]}" for left, right in merges]
    tap.equal(reader.arrays["tokenizer.ggml.merges"], lines, "the merges of a plain trainer")
    tap.equal(reader.arrays["tokenizer.ggml.tokens"], spelt + [END], "tokens: bytes, merges, the end")
    tap.equal(reader.arrays["tokenizer.ggml.token_type"], [1] * 556 + [3], "the end is a control token")
    wanted = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.bos_token_id": 556,
              "tokenizer.ggml.eos_token_id": 556, "tokenizer.ggml.add_bos_token": True,
              "tokenizer.ggml.add_eos_token": False}
    tap.equal({k: reader.keys.get(k) for k in wanted}, wanted, "keys")
    for file, text in zip(files, texts):
        ids = saf("model", "tokens", out, "--file", file, "--special").stdout.split()
        expected = [556] + [t for i, part in enumerate(text.split(END))
                            for t in [556] * (i > 0) + encode(part, merges)]
        tap.equal([int(t) for t in ids], expected, f"{os.path.basename(file)}: ids of a plain encoder")
        idfile = write(folder, "ids", " ".join(ids).encode())
        tap.equal(text_of(out, idfile, "--special"), text.encode(), f"{os.path.basename(file)}: and back")
    again = os.path.join(folder, "again.gguf")
    saf("model", "vocab", again, *files[::-1], "--size", 257 + 300)
    tap.ok(open(out, "rb").read() == open(again, "rb").read(), "the same bytes whatever the order of the texts")


def check_limits(folder):
    out = os.path.join(folder, "small.gguf")
    short = write(folder, "short", b"ababab ababab")
    run = saf("model", "vocab", out, "--size", 1000, short)
    tap.ok(run.returncode == 0 and "too short for 1000 tokens" in run.stderr, "a short text gives fewer", run.stderr)
    # Words "ababab" and " ababab": ab (6 times), then abab and its rest, both words at once.
    tap.equal(Reader(out).arrays["tokenizer.ggml.merges"], ["a b", "ab ab", "abab ab"], "down to pairs that are there once")
    empty = write(folder, "empty", b"")
    run = saf("model", "vocab", out, "--size", 257, empty)
    tap.ok(run.returncode == 0 and Reader(out).keys["tokenizer.ggml.eos_token_id"] == 256, "the bytes alone", run.stderr)
    tap.equal(saf("model", "tokens", out, "--text", "ab").stdout, "256 97 98\n", "and their ids")
    bad = write(folder, "bad", b"abc\xff")
    for words, code, says in ((("--size", 300, short), 2, "no text to learn from"),
                              ((out, short), 2, "--size is needed"),
                              ((out, "--size", "3x", short), 2, "not understood"),
                              ((out, "--size", 256, short), 2, "expected 257 to"),
                              ((out, "--size", 1 << 40, short), 2, "expected 257 to"),
                              ((out, "--what", short), 2, "unknown or incomplete"),
                              ((out, "--size", 300, short + "no"), 66, "No such file"),
                              ((out, "--size", 300, bad), 65, "byte 3 is not UTF-8"),
                              ((folder + "/none/v.gguf", "--size", 300, short), 73, "No such file"),
                              ((short, "--size", 300, bad), 2, "is there and no GGUF file"),
                              ((folder + "/./short", "--size", 300, bad, short), 2, "is a text to learn from")):
        run = saf("model", "vocab", *words)
        tap.ok(run.returncode == code and says in run.stderr, f"{code}: {says}", (run.returncode, run.stderr))
    tap.equal(open(short, "rb").read(), b"ababab ababab", "a text that was named as the output is as it was")
    run = saf("model", "vocab", "--help")
    tap.ok(run.returncode == 0 and run.stdout.startswith("usage: saf model vocab"), "--help", run.stdout)


def check_corpus(folder):
    corpus = os.path.join(SHARED, "corpus")
    if not os.path.isdir(corpus):
        tap.skip("a vocabulary of 2,048 from 0.9 MB", "no ../shared/corpus on this machine")
        return
    out = os.path.join(folder, "stories.gguf")
    files = sorted(os.path.join(corpus, n) for n in os.listdir(corpus))
    run = saf("model", "vocab", out, "--size", 2048, *files)
    seconds = re.search(r"2048 tokens, in ([0-9.]+) s", run.stderr)
    tap.ok(run.returncode == 0 and seconds and float(seconds[1]) < 20, "2,048 tokens from 0.9 MB in seconds", run.stderr)
    for file in files:
        ids = saf("model", "tokens", out, "--file", file).stdout
        with open(file, "rb") as f:
            tap.ok(text_of(out, write(folder, "ids", ids.encode())) == f.read(), f"{os.path.basename(file)}: there and back")


with scratch() as scratch_folder:
    check_learnt(scratch_folder)
    check_limits(scratch_folder)
    check_corpus(scratch_folder)
tap.exit()
