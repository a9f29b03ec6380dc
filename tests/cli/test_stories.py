"""The bundled model: its size, its vocabulary, the loss that its page states, the demo on one rank and on
three, and that what it tells is made of words."""
import os
import re
import sys

import h5py

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from gguf import Reader  # noqa: E402
from saftest import ROOT, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
MODELS = os.path.join(ROOT, "jobs", "models")
MODEL, VOCAB = os.path.join(MODELS, "stories.gguf"), os.path.join(MODELS, "stories.vocab.gguf")
STORIES = os.path.join(ROOT, "jobs", "data", "stories")
TEXTS = [os.path.join(STORIES, n) for n in sorted(os.listdir(STORIES)) if n.endswith(".txt")]
HELD_OUT = 0.05


def check_file(folder):
    tap.ok(os.path.getsize(MODEL) <= 2_500_000, "at most 2.5 MB", os.path.getsize(MODEL))
    again = os.path.join(folder, "vocab.gguf")
    size = len(Reader(VOCAB).arrays["tokenizer.ggml.tokens"])
    run = saf("model", "vocab", again, "--size", size, "--held-out", HELD_OUT, *TEXTS)
    with open(VOCAB, "rb") as a, open(again, "rb") as b:
        tap.ok(a.read() == b.read(), "the vocabulary is made of the texts, to the byte", run.stderr)
    model, vocab = Reader(MODEL).arrays, Reader(VOCAB).arrays
    tap.ok(all(model[k] == vocab[k] for k in vocab), "the model has its vocabulary")
    run = saf("run", "jobs/train-stories.cfg", "--dry-run")
    shapes = {t["name"]: t["shape"] for t in Reader(MODEL).tensors}
    parameters = sum(a * b for a, b in ((s + [1])[:2] for s in shapes.values()))
    tap.ok(run.returncode == 0 and f"{parameters} parameters" in run.stdout, "the job that made it has its shape",
           run.stdout + run.stderr)


def check_loss(folder):
    """Of the end of each text, in sequences as the trainer has them."""
    reader = Reader(MODEL)
    end, context = reader.keys["tokenizer.ggml.eos_token_id"], reader.keys["llama.context_length"]
    ids, size = [], 0
    for text in TEXTS:
        with open(text, "rb") as f:
            data = f.read()
        held = data[data.index(b"\n", int(len(data) * (1 - HELD_OUT))) + 1:]
        part = os.path.join(folder, "held.txt")
        with open(part, "wb") as f:
            f.write(held)
        ids += [int(t) for t in saf("model", "tokens", MODEL, "--file", part, "--no-bos").stdout.split()] + [end]
        size += len(held)
    lines = [[end] + ids[at:at + context - 1] for at in range(0, len(ids), context - 1)]
    with open(os.path.join(folder, "ids.txt"), "w", encoding="ascii") as f:
        f.writelines(" ".join(map(str, line)) + "\n" for line in lines)
    job = job_file(folder, f'job = "score"; model: {{ path = "{MODEL}"; }}; input: {{ tokens = "{folder}/ids.txt"; }}; '
                           f'output: {{ file = "{folder}/score.h5"; }};')
    run = saf("run", job)
    if not tap.ok(run.returncode == 0, "the held-out text is scored", run.stderr):
        return
    with h5py.File(os.path.join(folder, "score.h5")) as f:
        loss = -f["requests"]["log_likelihood"].sum() / size
    with open(os.path.join(MODELS, "README.md"), encoding="utf-8") as f:
        stated = float(re.search(r"held-out loss: ([0-9.]+) nats per byte", " ".join(f.read().split()))[1])
    tap.ok(abs(loss - stated) < 0.002, "the loss is what its page states", (loss, stated))


def check_demo(folder):
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as f:
        tap.ok("mpirun -np 3 --oversubscribe $(BUILD)/saf run jobs/demo.cfg" in f.read(), "make demo: three ranks")
    told = {}
    for ranks in 0, 3:
        out = os.path.join(folder, f"demo{ranks}.h5")
        run = saf("run", "jobs/demo.cfg", f"output.file={out}", ranks=ranks)
        if not tap.ok(run.returncode == 0, f"the demo on {ranks or 1} ranks", run.stderr):
            return
        with h5py.File(out) as f:
            told[ranks] = f.attrs["tokens_sha256"], list(f["text/completion"].asstr()[:])
    tap.equal(told[3][0], told[0][0], "the same tokens")
    known = set()
    for text in TEXTS:
        with open(text, encoding="utf-8") as f:
            known.update(re.findall(r"[a-z]+", f.read().lower()))
    words = re.findall(r"[a-z]+", " ".join(told[0][1]).lower())
    share = sum(w in known for w in words) / max(1, len(words))
    tap.ok(len(words) > 150 and share > 0.9, "nearly all that it says are words", (len(words), share, told[0][1]))


with scratch() as scratch_folder:
    check_file(scratch_folder)
    check_loss(scratch_folder)
    check_demo(scratch_folder)
tap.exit()
