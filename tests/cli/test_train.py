"""train jobs: the same bits on any ranks and after a stop, what score says of the model that was
written, results and reports, errors."""
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from gguf import Reader  # noqa: E402
from resume import changed  # noqa: E402
from results_maker import TYPES, page_tables  # noqa: E402
from saftest import ENV, PATIENCE, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
STEPS, BATCH, CONTEXT, EVERY = 50, 8, 16, 20
TEXT = os.path.join(ROOT, "jobs", "data", "stories", "carroll-alice.txt")
SETTINGS = {"shape": "2:32:4:2:8:64", "steps": STEPS, "batch": BATCH, "micro_batches": 4, "context": CONTEXT,
            "warmup": 10, "learning_rate": 0.01, "evaluate_every": EVERY}


def write(folder, name, data):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


def prepare(folder):
    """Texts of some kilobytes, a vocabulary, a job."""
    with open(TEXT, "rb") as f:
        text = f.read()
    learn = [write(folder, f"learn{i}.txt", text[at:at + 9000]) for i, at in enumerate((0, 9000))]
    held = write(folder, "held.txt", text[18000:20000])
    vocab = os.path.join(folder, "vocab.gguf")
    run = saf("model", "vocab", vocab, "--size", 320, *learn)
    assert run.returncode == 0, run.stderr
    settings = dict(SETTINGS, vocab=vocab)
    words = " ".join(f"{k} = {json.dumps(v)};" for k, v in settings.items())
    return job_file(folder, f"""job = "train";
train: {{ {words} }};
input: {{ text = {json.dumps(learn)}; held_out_text = {json.dumps([held])}; }};
output: {{ file = "{folder}/r.h5"; }};
layout: {{ threads = 1; }};
"""), vocab, held


def train(job, name, *words, ranks=0, **keys):
    """Runs it into NAME.h5; (process, hash of the weights or None)."""
    path = os.path.join(os.path.dirname(job), name + ".h5")
    run = saf("run", job, f"output.file={path}", *words, ranks=ranks, **keys)
    if run.returncode:
        return run, None
    with h5py.File(path) as f:
        return run, f.attrs["weights_sha256"]


def curve(folder, name):
    with h5py.File(os.path.join(folder, name + ".h5")) as f:
        steps, evaluations = f["steps"][:], f["evaluations"][:]
    keep = ["step", "loss", "learning_rate", "gradient_norm", "tokens"]
    return [tuple(row[k] for k in keep) for row in steps], \
        [tuple(row[k] for k in ("step", "loss", "loss_per_byte", "tokens", "bytes")) for row in evaluations]


def rate(step, top=0.01, warmup=10, floor=0.1):
    if step <= warmup:
        return top * step / warmup
    low = floor * top
    return low + (top - low) / 2 * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup)))


def check_results(folder, job, vocab, held):
    run, sha = train(job, "one")
    if not tap.ok(sha is not None, "a model is trained", run.stderr):
        return None
    steps, evaluations = curve(folder, "one")
    losses = np.array([s[1] for s in steps])
    tap.equal([s[0] for s in steps], list(range(1, STEPS + 1)), "/steps: a row a step")
    tap.ok(abs(losses[0] - math.log(320)) < 0.2 and losses[-5:].mean() < losses[0] - 0.8,
           "the loss begins where nothing is known, and falls", losses)
    tap.ok(np.allclose([s[2] for s in steps], [rate(s) for s in range(1, STEPS + 1)], rtol=1e-6), "learning rates")
    tap.equal({s[4] for s in steps}, {BATCH * CONTEXT}, "tokens of a step")
    tap.equal([e[0] for e in evaluations], [20, 40, 50], "/evaluations: as often as asked, and at the end")
    ids = saf("model", "tokens", vocab, "--file", held, "--no-bos").stdout.split()
    with open(held, "rb") as f:
        size = len(f.read())
    tap.equal({e[3:] for e in evaluations}, {(len(ids) + 1, size)}, "tokens and bytes of the held-out text")
    tap.ok(all(math.isclose(e[2], e[1] * e[3] / e[4]) for e in evaluations), "nats per byte", evaluations)
    with h5py.File(os.path.join(folder, "one.h5")) as f:
        a = dict(f.attrs)
        tap.equal(f["ranks"].shape, (1,), "/ranks")
        tap.ok("compute" not in f and a["job_kind"] == "train" and a["train_parameters"] == 320 * 32 * 2 + 32 + 2 * (
            2 * 32 + 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64) and a["train_held_out_loss"] == evaluations[-1][1],
            "attributes", a)
        page, kinds = page_tables(), {"text": str, "int64": np.int64, "float64": np.float64}
        wrong = [n for n, kind, _ in page["Attributes of a training"] if not isinstance(a.get(n), kinds[kind])]
        tap.equal(wrong, [], "attributes are doc/results.md's")
        for table in "steps", "evaluations":
            d = f[table]
            saw = [(n, d.dtype[n].str, u) for n, u in zip(d.dtype.names, d.attrs["units"])]
            tap.equal(saw, [(n, TYPES[t], u) for n, t, u, _ in page["/" + table]], f"/{table} is doc/results.md's")
    tap.equal(Reader(os.path.join(folder, "one.gguf")).keys["llama.context_length"], CONTEXT, "the model's context")
    return sha


def check_same_bits(folder, job, sha):
    with open(os.path.join(folder, "one.gguf"), "rb") as f:
        model = f.read()
    os.mkdir(os.path.join(folder, "other"))  # the file's name is in the model
    for ranks, words in ((2, []), (4, ["train.shard=true"]), (3, ["layout.threads=2"])):
        run, other = train(job, "other/one", *words, ranks=ranks)
        what = f"{ranks} ranks {' '.join(words)}"
        tap.ok(other == sha and curve(folder, "other/one") == curve(folder, "one"),
               f"{what}: the same weights and curve", (sha, other, run.stderr))
        with open(os.path.join(folder, "other", "one.gguf"), "rb") as f:
            tap.ok(f.read() == model, f"{what}: the same file")
    _, other = train(job, "other", "train.seed=2")
    tap.ok(other != sha, "another seed: another model")
    _, other = train(job, "other", "train.micro_batches=8")
    tap.ok(other != sha, "other micro-batches: other last bits")


def check_resume(folder, job, sha):
    for first, then, words in ((1, 3, []), (4, 1, ["train.shard=true"])):
        for kind in (".h5", ".gguf"):
            if os.path.exists(os.path.join(folder, "resumed" + kind)):
                os.remove(os.path.join(folder, "resumed" + kind))
        run, _ = train(job, "resumed", "train.stop_after=25", *words, ranks=first)
        tap.ok(run.returncode == 75 and "after step 25 of 50" in run.stderr, f"{first} ranks: stopped after step 25",
               run.stderr)
        status = saf("status", os.path.join(folder, "resumed.h5"))
        tap.ok("25 of 50 steps done" in status.stdout, "saf status", status.stdout + status.stderr)
        run, other = train(job, "resumed", ranks=then, again=True)
        tap.ok(other == sha and "goes on from" in run.stderr and curve(folder, "resumed") == curve(folder, "one"),
               f"on {then} ranks it goes on to the same weights and curve", (sha, other, run.stderr))
        tap.equal([n for n in os.listdir(folder) if ".ckpt-" in n], [], "checkpoints are gone")
    os.remove(os.path.join(folder, "resumed.h5"))
    train(job, "resumed", "train.stop_after=25")
    run, _ = train(job, "resumed", "train.decay=0.2", again=True)
    tap.ok(run.returncode == 65 and "train.decay was 0.1 and is 0.2" in run.stderr, "not of another job", run.stderr)
    newest = os.path.join(folder, "resumed.h5.ckpt-1")
    data = bytearray(open(newest, "rb").read())
    data[len(data) // 2] ^= 1
    write(folder, "resumed.h5.ckpt-1", data)
    run, _ = train(job, "resumed", again=True)
    tap.equal(run.returncode, 65, "a damaged checkpoint is refused")


def check_signal(folder, job):
    path = os.path.join(folder, "long.h5")
    child = subprocess.Popen([SAF, "run", job, f"output.file={path}", "train.steps=1000000", "train.evaluate_every=20"],
                             cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if "step 20 of" in line:
            child.send_signal(signal.SIGUSR1)
            break
    rest = child.stderr.read()
    tap.ok(child.wait(60) == 75 and "stopped as asked after step" in rest, "USR1: a checkpoint and exit code 75", rest)


def windows(vocab, held):
    """The sequences that the trainer measures: BOS and the tokens that the context has room for."""
    ids = [int(t) for t in saf("model", "tokens", vocab, "--file", held, "--no-bos").stdout.split()] + [319]
    return [[319] + ids[at:at + CONTEXT - 1] for at in range(0, len(ids), CONTEXT - 1)]


def score(folder, model, vocab, held):
    lines = windows(vocab, held)
    tokens = write(folder, "tokens.txt", "".join(" ".join(map(str, w)) + "\n" for w in lines).encode())
    job = job_file(folder, f'job = "score"; model: {{ path = "{model}"; kv_type = "f32"; }}; '
                           f'input: {{ tokens = "{tokens}"; }}; output: {{ file = "{folder}/score.h5"; }};', "score.cfg")
    run = saf("run", job)
    if run.returncode:
        return run.stderr
    with h5py.File(os.path.join(folder, "score.h5")) as f:
        return -f["requests"]["log_likelihood"].sum() / sum(len(w) - 1 for w in lines)


def check_model(folder, job, vocab, held):
    for arch, tied in (("llama", "false"), ("qwen3", "true")):
        for kind, close in (("f32", 1e-4), ("f16", 1e-2), ("bf16", 5e-2), ("q8_0", 5e-2)):
            run, _ = train(job, "model", f"train.arch={arch}", f"train.tied={tied}", f"output.type={kind}")
            if not tap.ok(run.returncode == 0, f"{arch} as {kind}", run.stderr):
                continue
            model = os.path.join(folder, "model.gguf")
            types = {t["type"] for t in Reader(model).tensors if len(t["shape"]) == 2}
            tap.equal(types, {kind.upper()}, f"{arch}: types of the matrices")
            told, got = curve(folder, "model")[1][-1][1], score(folder, model, vocab, held)
            tap.ok(isinstance(got, float) and abs(got - told) < close,
                   f"{arch} as {kind}: score finds the loss that the trainer told", (got, told))
    text = job_file(folder, f'job = "generate"; model: {{ path = "{folder}/model.gguf"; }}; '
                            f'input: {{ prompt = "Alice"; }}; generate: {{ max_tokens = 8; }}; '
                            f'output: {{ file = "{folder}/g.h5"; }};', "generate.cfg")
    run = saf("run", text)
    tap.ok(run.returncode == 0 and len(run.stdout) > 3, "the model generates", run.stderr)


def check_held_out_share(folder, job, vocab):
    """The end of each text, from a line on; a vocabulary that leaves it out has not seen it either."""
    run, _ = train(job, "share", "input.held_out_text=[]", "input.held_out=0.25", "train.steps=10")
    tap.ok(run.returncode == 0, "a share is held out", run.stderr)
    tokens = size = 0
    for i in range(2):
        with open(os.path.join(folder, f"learn{i}.txt"), "rb") as f:
            data = f.read()
        end = data[data.index(b"\n", int(len(data) * 0.75)) + 1:]
        part = write(folder, "end.txt", end)
        tokens += len(saf("model", "tokens", vocab, "--file", part, "--no-bos").stdout.split()) + 1
        size += len(end)
    tap.equal(curve(folder, "share")[1][-1][3:], (tokens, size), "from the next line on")
    run, _ = train(job, "none", "input.held_out_text=[]", "input.held_out=0", "train.steps=10")
    tap.equal((run.returncode, curve(folder, "none")[1]), (0, []), "nothing held out")
    cut = os.path.join(folder, "cut.gguf")
    text = write(folder, "two.txt", b"ab" * 40 + b"\n" + b"xyxy" * 10)
    saf("model", "vocab", cut, "--size", 270, "--held-out", "0.4", text)
    merges = Reader(cut).arrays["tokenizer.ggml.merges"]
    tap.ok("a b" in merges and "x y" not in merges, "saf model vocab --held-out", merges)


def patched(folder, vocab, change, name="patched.gguf"):
    with open(vocab, "rb") as f:
        data = bytearray(f.read())
    change(data)
    return write(folder, name, data)


def no_bos(data):
    at = data.index(b"tokenizer.ggml.add_bos_token") + len("tokenizer.ggml.add_bos_token") + 4
    assert data[at] == 1
    data[at] = 0


def swapped_merges(vocab):
    """Exchanges the first merge with the last that is as long: the same tokens, texts split otherwise."""
    merges = [m.encode() for m in Reader(vocab).arrays["tokenizer.ggml.merges"]]
    last = [m for m in merges if len(m) == len(merges[0])][-1]

    def change(data):
        first, start = merges[0], data.index(b"tokenizer.ggml.merges")
        a, b = (data.index(struct.pack("<Q", len(m)) + m, start) + 8 for m in (first, last))
        data[a:a + len(first)], data[b:b + len(first)] = last, first
    return change


def check_identity(folder, job, vocab, held):
    """A checkpoint is of one vocabulary, with its ways, and of texts that are learnt or held out."""
    learn, empty = os.path.join(folder, "learn0.txt"), write(folder, "empty.txt", b"")

    def texts(learnt, held_out):
        return [f"input.text={json.dumps(learnt)}", f"input.held_out_text={json.dumps(held_out)}", "input.held_out=0"]

    first = texts([learn], [held])
    run, _ = train(job, "same", "train.stop_after=5", *first)
    tap.equal(run.returncode, 75, "a checkpoint to go on from")
    tokens = saf("model", "tokens", vocab, "--file", learn).stdout
    merges = patched(folder, vocab, swapped_merges(vocab))
    tap.ok(saf("model", "tokens", merges, "--file", learn).stdout != tokens, "other merges: other tokens")
    for what, words, says in (
            ("other merges", [*first, f"train.vocab={merges}"], "train.vocab was"),
            ("a text learnt that was held out", texts([learn, held], []), "input.text was"),
            ("a text held out no longer", texts([learn], []), "input.held_out_text was"),
            ("texts the other way round", texts([held], [learn]), "input.text was"),
            ("an empty text more", texts([learn, empty], [held]), "input.text was"),
            ("an empty text held out more", texts([learn], [held, empty]), "input.held_out_text was")):
        run, _ = train(job, "same", *words, again=True)
        tap.ok(run.returncode == 65 and says in run.stderr, f"{what}: another job", (run.returncode, run.stderr))
    run, _ = train(job, "same", *first, f"train.vocab={patched(folder, vocab, no_bos)}", again=True)
    tap.ok(run.returncode == 65 and "train.vocab was" in run.stderr, "no BOS before a text: another job", run.stderr)
    copy = patched(folder, vocab, lambda data: None)
    run, _ = train(job, "same", *first, f"train.vocab={copy}", again=True)
    tap.ok(run.returncode == 0 and "goes on from" in run.stderr, "the same vocabulary elsewhere: the same job", run.stderr)


def check_restored_rows(folder, job):
    """Rows of a checkpoint that saf did not write, under a checksum that is right."""
    newest = os.path.join(folder, "rows.h5.ckpt-1")
    run, _ = train(job, "rows", "train.stop_after=45")
    assert run.returncode == 75, run.stderr
    good = open(newest, "rb").read()

    def put(name, at, value):
        def change(f):
            f["state"][name][at] = value
        return change

    def resized(name, n):
        def change(f):
            old = f["state"][name]
            words, attributes = old[:], dict(old.attrs)
            del f["state"][name]
            f["state"].create_dataset(name, data=np.resize(words, n)).attrs.update(attributes)
        return change

    for what, change, says in (
            ("a curve of a row less", resized("curve", 44 * 5), "one row for each step"),
            ("a loss that is infinite", put("curve", 5 * 7, math.inf), "a step whose numbers"),
            ("a gradient that is no number", put("curve", 5 * 7 + 2, math.nan), "a step whose numbers"),
            ("half a token", put("curve", 5 * 7 + 3, 0.5), "no number of tokens"),
            ("half an evaluation", resized("evaluations", 9), "a part of an evaluation"),
            ("evaluations that descend", put("evaluations", 6, 10), "one step after the other"),
            ("an evaluation twice", put("evaluations", 6, 20), "one step after the other"),
            ("one before the first step", put("evaluations", 0, 0), "one step after the other"),
            ("one that is still to come", put("evaluations", 6, 46), "one step after the other"),
            ("one between two steps", put("evaluations", 0, 20.5), "one step after the other"),
            ("an evaluation that is infinite", put("evaluations", 1, math.inf), "an evaluation whose numbers"),
            ("per byte as well", put("evaluations", 2, -math.inf), "an evaluation whose numbers"),
            ("an evaluation of fewer than no bytes", put("evaluations", 4, -1), "tokens or bytes")):
        write(folder, "rows.h5.ckpt-1", good)
        changed(newest, change)
        run, _ = train(job, "rows", again=True)
        tap.ok(run.returncode == 65 and says in run.stderr, what, (run.returncode, run.stderr))
    write(folder, "rows.h5.ckpt-1", good)
    changed(newest, put("evaluations", 2, math.nan))
    run, _ = train(job, "rows", again=True)
    tap.ok(run.returncode == 0 and math.isnan(curve(folder, "rows")[1][0][2]), "a loss per byte of no bytes", run.stderr)


def check_vocabulary_gone(folder, job, vocab):
    """The vocabulary is read again for the model: without it, the steps are not lost."""
    mine, path = os.path.join(folder, "mine.gguf"), os.path.join(folder, "gone.h5")
    words = [job, f"train.vocab={mine}", "train.steps=400"]
    shutil.copy(vocab, mine)
    _, sha = train(job, "whole", *words[1:])
    for ranks, spoil, code, says in (
            (0, lambda: os.remove(mine), 66, "No such file"),
            (2, lambda: patched(folder, vocab, no_bos, "mine.gguf"), 65, "has changed since")):
        command = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none"] if ranks else []
        child = subprocess.Popen([*command, SAF, "run", *words, f"output.file={path}", "--fresh"], cwd=ROOT, env=ENV,
                                 stderr=subprocess.PIPE, text=True)
        for line in child.stderr:
            if "step 20 of" in line:
                spoil()
                break
        rest = child.stderr.read()
        tap.ok(child.wait(60) == code and says in rest and f"{path}.ckpt-*" in rest and "goes on" in rest and
               not os.path.exists(path) and not os.path.exists(path[:-3] + ".gguf"),
               f"{says}: a checkpoint remains", (child.returncode, rest))
        shutil.copy(vocab, mine)
        run, other = train(job, "gone", *words[1:], again=True)
        tap.ok(sha and other == sha and "400 of 400 steps done" in run.stderr and curve(folder, "gone") ==
               curve(folder, "whole") and os.path.exists(path[:-3] + ".gguf"), "and the same command writes the model",
               (sha, other, run.stderr))
        tap.equal([n for n in os.listdir(folder) if n.startswith("gone.h5.")], [], "and removes it")
        os.remove(path)
        os.remove(path[:-3] + ".gguf")


def check_again(folder, job, sha):
    run, other = train(job, "one", again=True)
    tap.ok(other == sha and "nothing to compute" in run.stderr, "a finished job is not run again", run.stderr)
    os.remove(os.path.join(folder, "one.gguf"))
    run, other = train(job, "one", again=True)
    tap.ok(other == sha and os.path.exists(os.path.join(folder, "one.gguf")), "but for a model that is gone", run.stderr)
    run, _ = train(job, "one", "train.seed=3", again=True)
    tap.ok(run.returncode == 65 and "train.seed was 1 and is 3" in run.stderr, "results of another job stay", run.stderr)
    other_text = write(folder, "other.txt", b"Once upon a time.\n" * 100)
    run, _ = train(job, "one", f'input.text=["{other_text}"]', again=True)
    tap.ok(run.returncode == 65 and "input" in run.stderr, "other texts: another job", run.stderr)


def check_report(folder):
    path = os.path.join(folder, "one.h5")
    run = saf("report", path)
    tap.ok(run.returncode == 0 and all(w in run.stdout for w in ("2:32:4:2:8:64", "nats/byte", "one.gguf", "50 of 8 ")),
           "saf report", run.stdout + run.stderr)
    told = json.loads(saf("report", path, "--json").stdout)["training"]
    steps, evaluations = curve(folder, "one")
    tap.ok([s["loss"] for s in told["curve"]] == [s[1] for s in steps] and
           [e["loss_per_byte"] for e in told["evaluations"]] == [e[2] for e in evaluations], "--json", told)
    picture = os.path.join(folder, "curve.svg")
    run = saf("report", path, "--plot", picture, env={"PATH": "/nonexistent"})
    tap.ok(run.returncode == 1 and "gnuplot" in run.stderr and not os.path.exists(picture), "--plot without gnuplot",
           run.stderr)
    if shutil.which("gnuplot"):
        run = saf("report", path, "--plot", picture)
        tap.ok(run.returncode == 0 and "</svg>" in open(picture, encoding="utf-8").read(), "--plot", run.stderr)
        run = saf("report", path, "--plot", folder + "/none/p.svg")
        tap.equal(run.returncode, 73, "a folder that is missing")
    else:
        tap.skip("--plot", "no gnuplot on this machine")
    run = saf("report", os.path.join(folder, "g.h5"), "--plot", picture)
    tap.ok(run.returncode == 65 and "no train job" in run.stderr, "--plot of another job", run.stderr)


def check_dry_run(folder, job):
    run = saf("run", job, "--dry-run", f"output.file={folder}/dry.h5", ranks=3)
    tap.ok(run.returncode == 0 and "parameters" in run.stdout and "50 steps of 8 sequences" in run.stdout and
           not os.path.exists(folder + "/dry.h5"), "--dry-run", run.stdout + run.stderr)


def check_outputs(folder, job):
    """No output takes the place of what is read, by whatever name, nor of the other."""
    here = os.path.join(folder, "places")
    os.mkdir(here)
    paths = {k: os.path.join(here, k) for k in ("v.gguf", "a.txt", "h.txt")}
    for path, name in zip(paths.values(), ("vocab.gguf", "learn0.txt", "held.txt")):
        shutil.copy(os.path.join(folder, name), path)
    os.link(paths["a.txt"], os.path.join(here, "linked.gguf"))
    os.symlink("places", os.path.join(folder, "elsewhere"))
    before = {p: open(p, "rb").read() for p in paths.values()}
    base = [f"train.vocab={paths['v.gguf']}", f"input.text={json.dumps([paths['a.txt']])}",
            f"input.held_out_text={json.dumps([paths['h.txt']])}"]
    for file, model, says in (
            ("places/v.h5", None, (f"train.vocab ({paths['v.gguf']})", "output.model")),
            ("r.h5", "elsewhere/v.gguf", (f"train.vocab ({paths['v.gguf']})", f"output.model ({folder}/elsewhere/v.gguf)")),
            ("r.h5", "places/linked.gguf", (f"input.text ({paths['a.txt']})", f"output.model ({here}/linked.gguf)")),
            ("places/./h.txt", "r.gguf", (f"input.held_out_text ({paths['h.txt']})", f"output.file ({here}/./h.txt)")),
            ("new.h5", "./new.h5", ("output.model", "another file than output.file")),
            ("places/new.h5", "elsewhere/new.h5", ("output.model", "another file than output.file"))):
        words = [f"output.file={folder}/{file}"] + ([f"output.model={folder}/{model}"] if model else [])
        run = saf("run", job, *base, *words)
        tap.ok(run.returncode == 2 and all(s in run.stderr for s in says), f"{file} and {model or 'its model'}",
               (run.returncode, run.stderr))
    tap.ok(all(open(p, "rb").read() == data for p, data in before.items()), "what is read stays as it was")
    run = saf("run", job, *base, "train.steps=10", f"output.file={here}/a.h5", f"output.model={here}/h.gguf")
    tap.equal(run.returncode, 0, "other names beside them are none of theirs")


def check_shards(folder, job):
    """Of both moments a rank keeps its part alone, where each layer is far smaller than a large page too."""
    words = ["train.shape=40:128:4:2:32:416", "train.steps=1", "train.warmup=0", "train.context=8", "train.batch=4",
             "input.held_out_text=[]", "input.held_out=0"]
    told, taken = [], []
    for shard in ("false", "true"):
        words_of = [*words, f"train.shard={shard}"]
        run = saf("run", job, "--dry-run", *words_of, ranks=4)
        told.append([float(line.split()[3]) for line in run.stdout.splitlines()[-4:]])
        train(job, "shard" + shard, *words_of, ranks=4)
        with h5py.File(f"{folder}/shard{shard}.h5") as f:
            taken.append([n / 2**20 for n in f["ranks"]["peak_memory_bytes"]])
    less, promised = ([[a - b for a, b in zip(*both)] for both in (taken, told)])
    tap.ok(min(promised) > 40 and all(abs(a - b) < 0.2 * b for a, b in zip(less, promised)),
           "train.shard saves the memory that --dry-run says", (told, taken))


def check_errors(folder, job, vocab):
    bad = write(folder, "bad.txt", b"Once upon\xff a time\n" * 50)
    short = write(folder, "short.txt", b"Once.\n")
    for words, code, says in (
            (["train.shape=2:32"], 2, "expected layers:width"),
            (["train.shape=2:32:3:2:8:64"], 2, "heads"),
            (["train.shape=2:32:4:2:7:64"], 2, "an even width"),
            (["train.micro_batches=3"], 2, "a power of two"),
            (["train.batch=6"], 2, "a multiple of train.micro_batches"),
            (["--dry-run", "train.micro_batches=1", "train.context=256", "train.batch=1048576"], 2, "tokens at most"),
            (["train.warmup=51"], 2, "at most train.steps"),
            (["train.arch=qwen2"], 2, "llama, qwen3"),
            (["train.vocab=" + folder + "/missing.gguf"], 66, "No such file"),
            (["train.vocab=" + bad], 65, "bad.txt"),
            ([f'input.text=["{bad}"]'], 65, "byte 9 is not UTF-8"),
            ([f'input.text=["{folder}/none.txt"]'], 66, "No such file"),
            ([f'input.text=["{short}"]'], 65, "fewer than a sequence"),
            (['input.held_out_text=[]', f'input.text=["{short}"]', "train.context=2"], 65, "held out"),
            ([f"output.model={folder}/none/m.gguf"], 73, "No such file"),
            (["output.type=q4_0"], 2, "f32, f16, bf16, q8_0")):
        run, _ = train(job, "wrong", *words)
        tap.ok(run.returncode == code and says in run.stderr, f"{code}: {words[-1][-60:]}", (run.returncode, run.stderr))
    run, _ = train(job, "wrong", ranks=5)
    tap.ok(run.returncode == 2 and "micro" in run.stderr, "more ranks than micro-batches", run.stderr)
    # Decay alone then makes each weight -9 times what it was.
    run, _ = train(job, "wrong", "train.learning_rate=10", "train.decay=1", "train.clip=0", "train.warmup=0",
                   "train.steps=200")
    tap.ok(run.returncode == 1 and "finite" in run.stderr and "a smaller learning rate may help" in run.stderr,
           "a rate that is too high", (run.returncode, run.stderr))
    tap.equal([n for n in os.listdir(folder) if n.startswith("wrong")], [], "nothing is left of jobs that failed")
    tap.equal([n for n in os.listdir(folder) if n.endswith(".part")], [], "nothing half written is left")


with scratch() as scratch_folder:
    the_job, the_vocab, held_out = prepare(scratch_folder)
    weights = check_results(scratch_folder, the_job, the_vocab, held_out)
    if weights:
        check_same_bits(scratch_folder, the_job, weights)
        check_resume(scratch_folder, the_job, weights)
        check_signal(scratch_folder, the_job)
        check_model(scratch_folder, the_job, the_vocab, held_out)
        check_held_out_share(scratch_folder, the_job, the_vocab)
        check_identity(scratch_folder, the_job, the_vocab, held_out)
        check_restored_rows(scratch_folder, the_job)
        check_vocabulary_gone(scratch_folder, the_job, the_vocab)
        check_again(scratch_folder, the_job, weights)
        check_report(scratch_folder)
        check_dry_run(scratch_folder, the_job)
        check_outputs(scratch_folder, the_job)
        if PATIENCE > 1:
            tap.skip("what train.shard saves", "a build that checks itself takes memory for that")
        else:
            check_shards(scratch_folder, the_job)
    check_errors(scratch_folder, the_job, the_vocab)
tap.exit()
