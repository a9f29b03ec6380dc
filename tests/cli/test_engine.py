"""saf run at the edges: schedules, contexts and stop strings at their limits, every form of input,
streaming, a bar on a terminal, the table of calls."""
import json
import os
import pty
import re
import struct
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()


def words_of(settings):
    return [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]


def run(folder, kind, ranks=0, path=STORIES, env=None, **settings):
    """The finished process and, if it went well, what the results file holds."""
    job = job_file(folder, f'job = "{kind}"; model: {{ path = "{path}"; }};', "j.cfg")
    out = os.path.join(folder, "out.h5")
    settings = {"layout__threads": 1, **settings}
    p = saf("run", job, f"output.file={out}", *words_of(settings), ranks=ranks, env=env)
    if p.returncode != 0:
        return p, None
    with h5py.File(out) as f:
        rows = [{k: r[k].decode() if isinstance(r[k], bytes) else r[k] for k in r.dtype.names}
                for r in f["requests"][...]]
        for row, prompt, text in zip(rows, f["text/prompt"].asstr(), f["text/completion"].asstr()):
            row.update(prompt=prompt, text=text)
        return p, {"rows": rows, "attrs": dict(f.attrs), "calls": f["calls"][...],
                   "tokens": f["tokens/completion"][...].tolist(),
                   "logits": f["logits"].shape if "logits" in f else None}


def hashes(r):
    return (r["attrs"]["tokens_sha256"], r["attrs"].get("logits_sha256")) if r else None


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def ids(folder, *lengths):
    """A file of sequences of these lengths."""
    return write(folder, "ids.txt", "".join(
        " ".join(str(3 + (7 * i + k) % 500) for k in range(n)) + "\n" for i, n in enumerate(lengths)))


def schedules(folder):
    """Sequences of 1 to 40 tokens, more than slots, however few rows go at a time."""
    tokens = ids(folder, 1, 40, 7, 2, 13, 1, 25, 8, 3)
    for kind, extra in (("score", {"score__logits": "true"}),
                        ("generate", {"generate__max_tokens": 5, "generate__logits": "true",
                                      "generate__temperature": 0.8})):
        first = None
        for ranks, sequences, micro_batch, chunk, threads in (
                (0, 0, 0, 0, 0), (0, 1, 8, 1, 1), (0, 3, 2147483647, 2147483647, 1), (1, 2, 1, 2, 16),
                (2, 4, 4, 1, 1), (3, 9, 4, 3, 1), (5, 4, 9, 2, 1), (5, 1, 1, 2147483647, 1)):
            p, r = run(folder, kind, ranks, input__tokens=tokens, run__sequences=sequences,
                       run__micro_batch=micro_batch, run__chunk=chunk, layout__threads=threads, **extra)
            first = first or hashes(r)
            tap.ok(r and None not in hashes(r) and hashes(r) == first,
                   f"{kind}: ranks {ranks}, sequences {sequences}, micro-batch {micro_batch}, "
                   f"chunk {chunk}, threads {threads}", f"{p.stderr}{hashes(r)} {first}")


def contexts(folder):
    """stories260K has a context of 512."""
    cases = [("score", 511, "done", 0), ("score", 512, "done", 0), ("score", 513, "failed", 0),
             ("generate", 510, "done", 2), ("generate", 511, "done", 1), ("generate", 512, "failed", 0)]
    for kind, n, state, completed in cases:
        tokens = ids(folder, n, 4)
        more = {"generate__ignore_eos": "true"} if kind == "generate" else {}
        p, r = run(folder, kind, 2 if n == 512 else 0, input__tokens=tokens, **more)
        row = r["rows"][0] if r else {}
        tap.ok(r and row["state"] == state and row["completion_tokens"] == completed and
               r["rows"][1]["state"] == "done" and
               r["attrs"]["failed_requests"] == (state == "failed") and
               (state == "done" or row["error"] == f"the prompt has {n} tokens, the context 512"),
               f"{kind}: a prompt of {n} tokens, {state}", f"{p.stderr}{row}")
    for ranks in 0, 1, 3:
        p, r = run(folder, "generate", ranks, input__prompt="Once upon", run__context=3)
        tap.ok(r and r["attrs"]["failed_requests"] == 1, f"nothing that can run, ranks {ranks}", p.stderr)
    p, r = run(folder, "generate", 2, input__prompt="Once", generate__max_tokens=1)
    tap.ok(r and r["rows"][0]["completion_tokens"] == 1 and p.stdout == " upon\n", "one token",
           p.stderr + p.stdout)


def one_token_score(folder):
    for ranks in 0, 2:
        p, r = run(folder, "score", ranks, input__tokens=ids(folder, 1), score__logits="true")
        row = r["rows"][0] if r else {}
        tap.ok(r and row["state"] == "done" and row["log_likelihood"] == 0 and
               np.isnan(row["perplexity"]) and r["logits"] == (1, 512), f"a text of one token, ranks {ranks}",
               f"{p.stderr}{row}")


def stop_strings(folder):
    """Every stop ends the text just before its first place, in the file and on stdout alike."""
    def text_of(prompt, n=40, **more):
        p, r = run(folder, "generate", input__prompt=prompt, generate__max_tokens=n, **more)
        if not r:
            return p.stderr, "", 0
        row = r["rows"][0]
        tap.equal(p.stdout, row["text"] + "\n", f"stdout is the stored text, {more}")
        return row["text"], row["finish_reason"], row["completion_tokens"]

    whole, reason, _ = text_of("Once")
    tap.ok(reason == "length" and whole.startswith(" upon a time, there was"), "without a stop", whole)
    for stop in (" ", " upon", "pon a ti", "me, t", "e, there w", whole[-1], whole[-9:], whole):
        got = text_of("Once", generate__stop=json.dumps([stop], ensure_ascii=False))
        tap.equal(got[:2], (whole[:whole.index(stop)], "stop"), f"stop at {stop!r}")
    got = text_of("Once", generate__stop='["there", "a time", "time, "]')
    tap.equal(got[:2], (whole[:whole.index("a time")], "stop"), "the first of three stops")
    got = text_of("Once", generate__stop='["upon a bus", "xyz"]')
    tap.equal(got[:2], (whole, "length"), "a stop that only begins to match")
    _, r = run(folder, "generate", input__prompt="Once", generate__max_tokens=3)
    tap.equal(text_of("Once", generate__stop_ids=f"[7, {r['tokens'][0]}]"), ("", "stop", 1),
              "a stop id at once")
    tap.equal(text_of("Once", generate__stop_ids=f"[{r['tokens'][2]}]"), (" upon a", "stop", 3),
              "a stop id later")
    # Hot sampling makes characters of several bytes and halves of them.
    hot = {"n": 60, "generate__temperature": 8.0, "generate__seed": 1}
    wild, reason, n = text_of("Once", **hot)
    tap.ok(n == 60 and "\ufffd" in wild, "a text with half characters", ascii(wild))
    c = next((c for c in wild if ord(c) > 127 and c != "\ufffd"), "none")
    got = text_of("Once", generate__stop=json.dumps([c], ensure_ascii=False), **hot)
    tap.equal(got[:2], (wild.split(c)[0], "stop"), f"a stop of several bytes, {ascii(c)}")
    p, _ = run(folder, "generate", input__prompt="Once", generate__stop='["\\x82"]')
    tap.ok(p.returncode == 2 and "generate.stop" in p.stderr, "half a character is no stop", p.stderr)


def zero_bytes(folder):
    """Token 3 of stories260K is the byte 0, which would end a string of HDF5."""
    tokens = write(folder, "zero.txt", "1 400 3 401\n")
    _, r = run(folder, "generate", input__tokens=tokens, generate__max_tokens=1)
    tap.equal(r and r["rows"][0]["prompt"], "do\ufffd lo", "text behind a zero byte is kept")


def inputs(folder):
    with h5py.File(os.path.join(folder, "p.h5"), "w") as f:
        f["a/vlen"] = ["Once", "The cat", "\u00e9\u65e5"]
        f.create_dataset("fixed", data=np.array([b"Once", b"The cat"], dtype="S9"))
    for dataset, n in (("a/vlen", 3), ("fixed", 2)):
        p, r = run(folder, "generate", 2, input__prompts=f"{folder}/p.h5:/{dataset}",
                   generate__max_tokens=3)
        tap.ok(r and [x["prompt"] for x in r["rows"]] == ["Once", "The cat", "\u00e9\u65e5"][:n] and
               r["rows"][0]["text"] == " upon a time", f"prompts of {dataset}", f"{p.stderr}{r}")
    lines = write(folder, "p.jsonl", "".join(json.dumps(x) + "\n" for x in (
        {"id": "a", "prompt": "Once", "temperature": 2.0, "seed": 3},
        {"id": "b", "prompt": "Once", "temperature": 2.0, "seed": 4},
        {"id": "c", "prompt": "Once", "max_tokens": 2}, {"id": "empty", "prompt": ""})))
    p, r = run(folder, "generate", 3, input__prompts=lines, generate__max_tokens=8)
    rows = {x["id"]: x for x in r["rows"]} if r else {}
    tap.ok(r and rows["a"]["text"] != rows["b"]["text"] and rows["c"]["text"] == " upon a" and
           rows["a"]["seed"] == 3 and rows["empty"]["prompt_tokens"] == 1 and
           rows["empty"]["completion_tokens"] == 8, "settings of a line", f"{p.stderr}{rows}")
    path = os.path.join(folder, "chat.gguf")
    saf("model", "make", path, "--arch", "llama", "--shape", "2:64:4:2:16:96", "--vocab",
        small_vocabulary(folder, template="<|im_start|>"))
    lines = write(folder, "m.jsonl", '{"messages": [{"role": "user", "content": "abc"}]}\n')
    p, r = run(folder, "generate", path=path, input__prompts=lines, generate__max_tokens=2)
    tap.ok(r and r["rows"][0]["prompt"] ==
           "<|im_start|>user\nabc<|im_end|>\n<|im_start|>assistant\n", "messages", f"{p.stderr}{r}")
    p, _ = run(folder, "generate", input__prompts=lines)
    tap.ok(p.returncode == 65 and "chat template" in p.stderr, "messages without a template", p.stderr)


def small_vocabulary(folder, template=""):
    """A GGUF file with 40 tokens and no model."""
    def text(t):
        return struct.pack("<Q", len(t.encode())) + t.encode()

    def key(name, kind, value):
        return text(name) + struct.pack("<I", kind) + value

    def array(kind, form, values):
        return struct.pack("<IQ", kind, len(values)) + b"".join(
            text(v) if form == "text" else struct.pack(form, v) for v in values)

    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "\n", "\u2581"]
    types = [2, 3, 3, 3, 3, 1, 1]
    tokens += [chr(97 + i) for i in range(26)] + [f"w{i}" for i in range(7)]
    types += [1] * 33
    keys = [key("general.architecture", 8, text("llama")), key("tokenizer.ggml.model", 8, text("llama")),
            key("tokenizer.ggml.tokens", 9, array(8, "text", tokens)),
            key("tokenizer.ggml.scores", 9, array(6, "<f", [0.0] * len(tokens))),
            key("tokenizer.ggml.token_type", 9, array(5, "<i", types))]
    if template:
        keys.append(key("tokenizer.chat_template", 8, text(
            "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>'}}"
            "{% endfor %}")))
    path = os.path.join(folder, "vocab.gguf")
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
    return path


def logprobs(folder):
    path = os.path.join(folder, "few.gguf")
    saf("model", "make", path, "--arch", "llama", "--shape", "2:64:4:2:16:96", "--vocab",
        small_vocabulary(folder))
    tokens = write(folder, "few.txt", "1 8 9\n")
    for n, code in ((40, 0), (41, 2), (64, 2)):
        p, _ = run(folder, "generate", 2, path=path, input__tokens=tokens, generate__logprobs=n,
                   generate__max_tokens=3)
        tap.ok(p.returncode == code and (code == 0 or "40 tokens" in p.stderr),
               f"{n} likeliest of 40 tokens", f"exit {p.returncode}: {p.stderr}")
    p, _ = run(folder, "generate", path=path, input__tokens=tokens, generate__stop_ids="[1, 40]")
    tap.ok(p.returncode == 2 and "stop_ids has 40" in p.stderr, "a stop id beyond the vocabulary",
           p.stderr)
    for temperature in "1e-300", "1e-30", "100.0":
        p, r = run(folder, "generate", path=path, input__tokens=tokens, generate__max_tokens=3,
                   generate__temperature=temperature, generate__logprobs=40, generate__top_p=0.5)
        tap.ok(r, f"temperature {temperature}", p.stderr)


def calls(folder):
    """Every kind of call is counted on every rank that makes it; what is sent arrives."""
    _, r = run(folder, "generate", 3, input__prompts="jobs/data/demo.txt", generate__max_tokens=3)
    if not tap.ok(r, "a run over 3 ranks"):
        return
    table = {(int(c["rank"]), c["kind"].decode() if isinstance(c["kind"], bytes) else c["kind"]): c
             for c in r["calls"]}
    for kind in "send", "recv", "bcast", "allreduce", "gather", "barrier":
        tap.ok(all(table[rank, kind]["calls"] > 0 and table[rank, kind]["wait_s"] >= 0
                   for rank in range(3)), f"calls of {kind}", str(table))
    for column in "calls", "bytes":
        sent, received = (sum(table[rank, kind][column] for rank in range(3)) for kind in ("send", "recv"))
        tap.equal(received, sent, f"{column} of send and recv")


def host_memory(folder):
    """The caches that saf chooses take no more of a host when more ranks are on it."""
    path = os.path.join(folder, "long.gguf")
    saf("model", "make", path, "--arch", "qwen3", "--shape", "4:64:4:2:16:96", "--context", 2000000000)
    with open("/proc/meminfo", encoding="ascii") as f:
        memory = int(f.readline().split()[1]) * 1024
    prompts = write(folder, "many.txt", "a\n" * 64)
    tokens = memory // 4 // (4 * 2 * 2 * 16 * 2) // 12  # twelve of them fill a quarter of it
    alone = 0
    job = job_file(folder, f'job = "generate"; model: {{ path = "{path}"; }};')
    for ranks in 1, 2, 4:
        p = saf("run", job, f"input.prompts={prompts}", f"generate.max_tokens={tokens}", "--dry-run",
                "--quiet", ranks=ranks)
        caches = [float(line.split()[-1]) for line in p.stdout.splitlines()[-ranks:]]
        alone = alone or sum(caches)
        tap.ok(len(caches) == ranks and 0 < sum(caches) < 1.01 * alone,
               f"caches of {ranks} ranks: {sum(caches):.0f} MiB", p.stdout + p.stderr)


def on_a_terminal(folder):
    """A bar for many prompts, alone and when mpirun hands stderr on; none into a pipe."""
    job = job_file(folder, f'job = "generate"; model: {{ path = "{STORIES}"; }};')
    for ranks in 0, 2:
        for terminal in True, False:
            command = [SAF, "run", "--fresh", job, "input.prompts=jobs/data/demo.txt", "generate.max_tokens=4",
                       f"output.file={folder}/bar.h5"]
            if ranks:
                command = ["mpirun", "-np", str(ranks), "--oversubscribe", *command]
            reader, writer = pty.openpty() if terminal else os.pipe()
            p = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=writer, stdout=subprocess.DEVNULL)
            os.close(writer)
            said = b""
            try:
                while part := os.read(reader, 4096):
                    said += part
            except OSError:  # a terminal's way to end
                pass
            os.close(reader)
            p.wait(60)
            bar = re.search(rb"\[=+\] 8/8 requests, 32 tokens", said)
            tap.ok(p.returncode == 0 and bool(bar) == terminal,
                   f"ranks {ranks}, {'a terminal' if terminal else 'a pipe'}", said)


def full_stdout():
    job = ["run", "jobs/generate.cfg", "--dry-run", "--quiet"]
    for words in (["--help"], ["--version"], ["help"], ["run", "--help"], job):
        with open("/dev/full", "w", encoding="ascii") as full:
            p = subprocess.run([SAF, *words], cwd=ROOT, env=ENV, stdout=full, stderr=subprocess.PIPE,
                               text=True, timeout=60, check=False)
        tap.ok(p.returncode == 74 and p.stderr.count("error: ") == 1,
               f"{' '.join(words)} to a full disk", f"exit {p.returncode}: {p.stderr}")


for part in (schedules, contexts, one_token_score, stop_strings, zero_bytes, inputs, logprobs, calls,
             host_memory, on_a_terminal):
    with scratch() as scratch_folder:
        part(scratch_folder)
full_stdout()
tap.exit()
