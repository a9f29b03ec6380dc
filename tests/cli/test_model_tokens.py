"""saf model tokens and saf model text: ids that the models' own tokenizers gave, every way in and
out, exit codes."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ROOT, SAF, SHARED, Tap, saf, scratch  # noqa: E402

tap = Tap()
VOCAB = os.path.join(SHARED, "vocab")
NAMES = ("llama-spm", "gpt-2", "qwen2", "llama-bpe")


def vectors(name):
    with open(os.path.join(VOCAB, name + ".inp"), "rb") as f:
        texts = f.read().split(b"\n__ggml_vocab_test__\n")[:-1]
    with open(os.path.join(VOCAB, name + ".out"), encoding="ascii") as f:
        return list(zip(texts, (line.split() for line in f)))


def raw(*args, stdin=b""):
    """Bytes in, bytes out."""
    return subprocess.run([SAF, "model", *args], cwd=ROOT, input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=120)


def check_vectors(name, folder):
    path, wrong, back = os.path.join(VOCAB, name + ".gguf"), [], []
    file = os.path.join(folder, "text")
    for i, (text, ids) in enumerate(vectors(name)[::4]):  # the unit tests go through all
        with open(file, "wb") as f:
            f.write(text)
        run = raw("tokens", path, "--file", file, "--no-bos")
        if run.stdout != " ".join(ids).encode() + b"\n" or run.returncode:
            wrong.append((i, run.stdout, ids, run.stderr))
        run = raw("text", path, "--ids", " ".join(ids))
        if run.stdout != text or run.returncode:
            back.append((i, run.stdout, text, run.stderr))
    tap.ok(not wrong, f"{name}: ids of texts", wrong)
    tap.ok(not back, f"{name}: texts of ids", back)


def check_ways():
    spm, qwen = os.path.join(VOCAB, "llama-spm.gguf"), os.path.join(VOCAB, "qwen2.gguf")
    tap.equal(saf("model", "tokens", spm, "--text", "Hello").stdout, "1 15043\n", "BOS by the rules")
    tap.equal(saf("model", "tokens", spm, "--text", "Hello", "--no-bos").stdout, "15043\n",
              "--no-bos")
    tap.equal(saf("model", "tokens", "--text", "", qwen).stdout, "\n", "an empty text")
    tap.equal(raw("tokens", qwen, "--file", "-", stdin=b"Hello").stdout, b"9707\n", "standard input")
    tap.equal(saf("model", "tokens", qwen, "--text", "<|im_end|>", "--special").stdout, "151645\n",
              "--special: the token")
    plain = saf("model", "tokens", qwen, "--text", "<|im_end|>").stdout.split()
    tap.ok("151645" not in plain and len(plain) > 1, "without it: plain text", plain)
    tap.equal(saf("model", "text", qwen, "--ids", "9707,151645", "--special").stdout,
              "Hello<|im_end|>", "saf model text --special")
    tap.equal(saf("model", "text", qwen, "--ids", "9707 151645").stdout, "Hello",
              "control tokens stay silent without it")
    tap.equal(raw("text", qwen, "--file", "-", stdin=b"9707\n0 1\n").stdout, b'Hello!"',
              "ids from standard input")


def check_errors(folder):
    qwen = os.path.join(VOCAB, "qwen2.gguf")
    bad = os.path.join(folder, "bad")
    with open(bad, "wb") as f:
        f.write(b"ab\xff")
    for args, code, says in (
            (("tokens",), 2, "one model file"),
            (("tokens", qwen), 2, "either --file or --text"),
            (("tokens", qwen, "--text", "a", "--file", "b"), 2, "either --file or --text"),
            (("tokens", qwen, "--what"), 2, "unknown option --what"),
            (("tokens", qwen, "--text"), 2, "needs a value"),
            (("tokens", qwen, "--file", bad), 65, "byte 2"),
            (("tokens", qwen, "--file", bad + "no"), 66, "No such file"),
            (("tokens", bad + "no", "--text", "a"), 66, "No such file"),
            (("tokens", bad, "--text", "a"), 65, "bad"),
            (("text", qwen), 2, "either --ids or --file"),
            (("text", qwen, "--ids", "1 x"), 2, '"x" at byte 2'),
            (("text", qwen, "--ids", "-1"), 2, '"-1"'),
            (("text", qwen, "--ids", "99999999999999999999"), 2, "no token id"),
            (("text", qwen, "--ids", "151669"), 65, "151669 is not in the vocabulary")):
        run = raw(*args)
        tap.ok(run.returncode == code and says in run.stderr.decode() and not run.stdout,
               f"saf model {' '.join(os.path.basename(a) for a in args)}: {code}",
               (run.returncode, run.stderr, run.stdout))
    for command in ("tokens", "text"):
        run = raw(command, "--help")
        tap.ok(run.returncode == 0 and run.stdout.startswith(b"usage: saf model " + command.encode()),
               f"saf model {command} --help", run.stdout)
    with open("/dev/full", "wb") as full:
        run = subprocess.run([SAF, "model", "tokens", qwen, "--text", "a"], stdout=full,
                             stderr=subprocess.PIPE, timeout=60)
    tap.equal(run.returncode, 74, "a full disk is noticed")


if not os.path.exists(os.path.join(VOCAB, "qwen2.gguf")):
    tap.skip("saf model tokens", "no ../shared/vocab on this machine")
else:
    with scratch() as scratch_folder:
        for vocabulary in NAMES:
            check_vectors(vocabulary, scratch_folder)
        check_ways()
        check_errors(scratch_folder)
tap.exit()
