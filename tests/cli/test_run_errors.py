"""saf run and saf help: wrong command lines and jobs stop before anything starts, with one message
and the right exit code on any number of ranks; what a results file keeps runs the same job again."""
import os
import re
import shlex
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from saftest import ENV, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()
JOB = 'job = "generate"; model: { path = "%s"; }; input: { prompt = "Once"; };\n'


def errors(process):
    return [line for line in process.stderr.splitlines() if "error: " in line]


def wrong(name, code, say, *words, ranks=0):
    """The command fails with this exit code and says this in one error, and nothing on stdout."""
    p = saf(*words, ranks=ranks)
    said = errors(p)
    tap.ok(p.returncode == code and len(said) == 1 and all(s in said[0] for s in say)
           and p.stdout == "", name, f"exit {p.returncode}\n{p.stdout}{p.stderr}")


def run_errors(folder):
    good = job_file(folder, JOB % "/no/such/model.gguf", "good.cfg")
    bad = job_file(folder, JOB % "m.gguf" + "generate: {\n  top_p = 2.0;\n};\n", "bad.cfg")
    for ranks in 0, 1, 2, 3:
        on = f" on {ranks} ranks" if ranks else ""
        wrong("a value out of range" + on, 2, [f"{bad}:3: generate.top_p: expected a number, 0 to 1"],
              "run", bad, ranks=ranks)
        wrong("no such job file" + on, 66, ["/no/such.cfg"], "run", "/no/such.cfg", ranks=ranks)
    wrong("an unknown key on the command line", 2, ["command line: generate.sed", "generate.seed?"],
          "run", good, "generate.sed=1")
    wrong("no job file", 2, ["needs a job file"], "run")
    wrong("only options", 2, ["needs a job file"], "run", "--quiet", ranks=2)
    wrong("an unknown option", 2, ['"--wrong"'], "run", good, "--wrong")
    wrong("an unknown short option", 2, ['"-x"'], "run", "-x", good)
    wrong("an option with a value that takes none", 2, ['"--quiet=1"'], "run", good, "--quiet=1")
    wrong("an unknown command", 2, ['"walk"'], "walk")
    wrong("an unknown kind of job for help", 2, ['"serve"'], "help", "serve")
    wrong("a missing model", 66, ["/no/such/model.gguf"], "run", good, "output.file=" + folder + "/x.h5")
    wrong("a missing model on 2 ranks", 66, ["/no/such/model.gguf"], "run", good,
          "output.file=" + folder + "/x.h5", ranks=2)
    tap.equal(sorted(os.listdir(folder)), ["bad.cfg", "good.cfg"], "nothing was written")
    missing = job_file(folder, JOB % "m.gguf", "kept.cfg")
    p = saf("run", missing, "--dry-run", "--quiet", "generate.seed=x")
    tap.ok(p.returncode == 2 and "generate.seed" in p.stderr, "options may stand anywhere", p.stderr)


def help_pages():
    for words in (["run", "--help"], ["run", "x.cfg", "--help"]):
        for ranks in 0, 2:
            p = saf(*words, ranks=ranks)
            tap.ok(p.returncode == 0 and p.stdout.count("usage: saf run") == 1 and p.stderr == "",
                   f"saf {' '.join(words)}, ranks {ranks}", p.stdout + p.stderr)
    for words in ["run"], ["report"], ["help"], ["model"], ["model", "info"], ["model", "make"]:
        p, long_way = saf("help", *words), saf(*words, "--help")
        usage = f"usage: saf {' '.join(words)} "
        tap.ok(p.returncode == 0 and p.stdout.startswith(usage) and p.stdout == long_way.stdout and
               p.stderr == "", f"saf help {' '.join(words)}", p.stdout + p.stderr)
    p = saf("help")
    tap.ok(p.returncode == 0 and "generate" in p.stdout and "score" in p.stdout, "saf help")
    with open(os.path.join(ROOT, "doc", "job-file.md"), encoding="utf-8") as f:
        page = f.read()
    for kind in "generate", "score", "bench", "matmul", "train":
        p = saf("help", kind)
        key = {"matmul": "matmul.a", "train": "train.vocab"}.get(kind, "model.path")
        tap.ok(p.returncode == 0 and f"\n  {key}\n" in p.stdout, f"saf help {kind}", p.stdout)
        tap.ok(all(len(line) <= 90 for line in p.stdout.splitlines()), f"saf help {kind} is narrow")
        p = saf("help", kind, "--markdown")
        tap.ok(p.stdout != "" and p.stdout in page, f"doc/job-file.md has the keys of {kind}")


def what_a_result_keeps(folder):
    import h5py
    cfg = job_file(folder, JOB % STORIES, "run.cfg")
    words = ["run", "--fresh", "--quiet", cfg, "generate.max_tokens=12", "generate.temperature=0.9",
             "generate.stop=[\"it's\", \"a b\"]", "input.prompt=Tom's \"cat\" $HOME\nsat",
             f"output.file={folder}/first.h5"]
    p = saf(*words, again=True)
    tap.ok(p.returncode == 0 and p.stdout == "" and p.stderr == "", "a quiet run says nothing",
           p.stdout + p.stderr)
    with h5py.File(f"{folder}/first.h5") as f:
        text, line, tokens = (f.attrs[k] for k in ("job_text", "command_line", "tokens_sha256"))
    tap.equal(shlex.split(line), ["saf", *words], "the command line can be pasted into a shell")
    again = job_file(folder, text, "again.cfg")
    p = saf("run", again, f"output.file={folder}/second.h5", ranks=2)
    tap.ok(p.returncode == 0 and "generate job" in p.stderr and "2 ranks" in p.stderr,
           "the kept job runs", p.stderr)
    tap.ok(re.search(r"^saf\[0\]: loaded [0-9.]+ MB in [0-9.]+ s \([0-9]+ MB/s\), 1 request to go$",
                     p.stderr, re.M),
           "a run says when the model is loaded", p.stderr)
    tap.ok("second.h5" in p.stderr.splitlines()[-1], "a run ends with where its results are",
           p.stderr)
    if os.path.exists(f"{folder}/second.h5"):
        with h5py.File(f"{folder}/second.h5") as f:
            tap.equal(f.attrs["tokens_sha256"], tokens, "the kept job gives the same tokens")
            tap.equal(f.attrs["job_text"].replace("second.h5", "first.h5"), text,
                      "and is kept as the same text")
    else:
        tap.ok(False, "the kept job gives the same tokens", "no results file")
    p = saf("run", cfg, "--dry-run", f"output.file={folder}/dry.h5", ranks=2)
    tap.ok(p.returncode == 0 and "layers" in p.stdout and not os.path.exists(f"{folder}/dry.h5"),
           "a dry run prints the plan and writes nothing", p.stdout + p.stderr)


# In mpirun's place. It checks that it starts with USR1 ignored, as the real one needs.
STUB = """#!/usr/bin/env python3
import os, signal, sys, time
assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
open(os.environ["STUB_WORDS"], "w").write(" ".join(sys.argv[1:]))
time.sleep(0.5)
print("a word of the launcher", file=sys.stderr, flush=True)
time.sleep(0.5)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(int(os.environ["STUB_CODE"])))
print("saf[0]: generate job", file=sys.stderr, flush=True)
for i in range(100):
    time.sleep(0.1)
    if os.path.exists(os.environ["STUB_WORDS"] + ".end"): sys.exit(7)
sys.exit(1)
"""


def batch_script(folder):
    """jobs/slurm/generate.sbatch with a stub in mpirun's place; USR1 as Slurm sends it."""
    stubs = os.path.join(folder, "bin")
    os.mkdir(stubs)
    with open(os.path.join(stubs, "mpirun"), "w", encoding="utf-8") as f:
        f.write(STUB)
    os.chmod(os.path.join(stubs, "mpirun"), 0o755)
    words = os.path.join(folder, "words")
    env = dict(ENV, PATH=stubs + ":" + ENV["PATH"], STUB_WORDS=words, STUB_CODE="75", SAF="a saf")

    def start():
        return subprocess.Popen(["bash", "jobs/slurm/generate.sbatch", "x.cfg", "a=b c"], cwd=ROOT,
                                env=env, stderr=subprocess.PIPE, text=True)

    def finish(p):
        try:
            return p.communicate(timeout=30)[1]
        except subprocess.TimeoutExpired:
            p.kill()
            return "did not end"

    for name, wait in (("before saf's first word", 0.3), ("after saf's first word", 1.6)):
        p = start()
        time.sleep(wait)
        p.send_signal(signal.SIGUSR1)
        if wait > 1:
            time.sleep(0.05)
        said = finish(p)
        tap.equal((p.returncode, said), (75, "a word of the launcher\nsaf[0]: generate job\n"),
                  f"USR1 {name} reaches the ranks once they can take it")
    with open(words, encoding="utf-8") as f:
        tap.equal(f.read(), "--bind-to none a saf run x.cfg a=b c", "the words reach saf")
    p = start()
    time.sleep(1.3)
    with open(words + ".end", "w", encoding="utf-8"):
        pass
    finish(p)
    tap.equal(p.returncode, 7, "the exit code is mpirun's")


def stop_request(folder):
    """A rank that gets USR1 stops in order: alone, and under the batch script with the real mpirun."""
    ask_to_stop([SAF, "run"], "alone", os.path.join(folder, "1.h5"))
    ask_to_stop(["bash", "jobs/slurm/generate.sbatch"], "in a batch job",
                os.path.join(folder, "2.h5"))
    quiet_first_word(os.path.join(folder, "3.h5"))


def quiet_first_word(out):
    """With --quiet saf tells the batch script, and nobody else, that it can take signals."""
    words = ["jobs/generate.cfg", "model.path=" + STORIES, "generate.max_tokens=3", "--quiet"]
    for variable, said in (None, ""), ("1", "saf: started\n"):
        p = saf("run", *words, f"output.file={out}", env={"SAF_FIRST_WORD": variable} if variable else None)
        os.remove(out)
        tap.equal((p.returncode, p.stderr), (0, said), f"the first word with --quiet, SAF_FIRST_WORD {variable}")
    script = """. jobs/launch.sh
        (sleep 0.05; kill -USR1 $$) &
        launch "$saf" run "$@" input.prompts=jobs/data/demo.txt generate.max_tokens=400 run.sequences=1 \\
            generate.ignore_eos=true"""
    p = subprocess.run(["bash", "-c", script, "-", *words, f"output.file={out}"], cwd=ROOT,
                       env=dict(ENV, SAF=SAF, SAF_KERNELS="scalar"), text=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, check=False)
    tap.equal((p.returncode, p.stderr), (75, ""), "the script hears it, and shows nothing")


def ask_to_stop(command, where, out):
    # As slow as can be, so that it still runs when asked: seconds of work on any machine.
    p = subprocess.Popen([*command, "jobs/generate.cfg",
                          "model.path=" + STORIES, "generate.max_tokens=400",
                          "generate.ignore_eos=true", "run.sequences=1", "layout.threads=1",
                          "output.file=" + out],
                         cwd=ROOT, env=dict(ENV, SAF=SAF, SAF_KERNELS="scalar", MAX_RESTARTS="0"), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = p.stderr.readline()
    p.send_signal(signal.SIGUSR1)
    p.send_signal(signal.SIGUSR1)
    try:
        said = p.communicate(timeout=120)[1]
    except subprocess.TimeoutExpired:
        p.kill()
        said = "did not end"
    tap.ok(p.returncode == 75 and "generate job" in first and "the same command goes on" in said and
           not os.path.exists(out), "USR1 stops a job with exit code 75, " + where,
           f"exit {p.returncode}\n{first}{said}")


def progress_in_a_log(folder):
    """A run that would take minutes is ended at the second line that tells how far it is."""
    prompts = os.path.join(folder, "many.txt")
    with open(prompts, "w", encoding="ascii") as f:
        f.write("Once upon a time\n" * 10000)
    job = job_file(folder, JOB % STORIES, "long.cfg")
    p = subprocess.Popen([SAF, "run", job, f"input.prompts={prompts}", "generate.max_tokens=400",
                          "generate.ignore_eos=true", "layout.threads=1", "run.sequences=1",
                          f"output.file={folder}/long.h5"], cwd=ROOT, text=True,
                         env=dict(ENV, SAF_KERNELS="scalar"), stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    seen = []
    for line in p.stderr:
        found = re.fullmatch(r"saf: (\d+) of 10000 requests done, (\d+) tokens in (\d+) s\n", line)
        seen += [list(map(int, found.groups()))] if found else []
        if len(seen) == 2:
            break
    p.kill()
    p.communicate()
    tap.ok(len(seen) == 2 and 5 <= seen[0][2] < seen[1][2] and seen[0][0] <= seen[1][0] and
           0 < seen[0][1] < seen[1][1], "a log tells how far a long run is", seen)


with scratch() as folder:
    run_errors(folder)
help_pages()
with scratch() as folder:
    what_a_result_keeps(folder)
with scratch() as folder:
    progress_in_a_log(folder)
with scratch() as folder:
    batch_script(folder)
with scratch() as folder:
    stop_request(folder)
tap.exit()
