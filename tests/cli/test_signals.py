"""Signals to a job, at any moment: USR1 stops it with exit code 75, TERM, INT and HUP end it with what can be
saved in half a second, a second one at once. Nobody is left behind and nothing is lost.
SAF_TEST_SIGNALS=long: from the first line on in steps of 10 ms; =crash: kill -9 alone, N times."""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from resume import LAYOUTS, Job, end, members, ranks_of, shuffled, until_it_computes, wait_until  # noqa: E402
from saftest import Tap, scratch  # noqa: E402

tap = Tap()
LONG = os.environ.get("SAF_TEST_SIGNALS") == "long"
chance = shuffled(int(os.environ.get("SAF_TEST_SEED", "1")))


def nobody_left(p, seconds=5):
    until = time.monotonic() + seconds
    while members(p) and time.monotonic() < until:
        time.sleep(0.01)
    left = members(p)
    end(p)
    return not left


def started(job, ranks, words):
    """Up to its first line."""
    p = job.start(ranks, words)
    first = p.stderr.readline()
    return p, first


def usr1(folder):
    """Asked again and again, at another moment each time, until the job is done all the same."""
    job = Job(folder, every=0, prompts=100 if LONG else 12)
    whole = job.run() and job.results()
    job.clear()
    names = list(LAYOUTS)
    waits = [0.01 * i for i in range(201)] if LONG else [0, 0.01, 0.02, 0.05, 0.1, 0.3, 0.7]
    codes, bad = [], ""
    for i, wait in enumerate(waits):
        ranks, words = LAYOUTS[names[i % 3]]
        p, first = started(job, ranks, words)
        time.sleep(wait)
        for _ in range(1 + i % 2):
            if p.poll() is None:
                p.send_signal(signal.SIGUSR1)
        said = first + p.communicate(timeout=120)[1]
        codes.append(p.returncode)
        if p.returncode not in (0, 75) or not nobody_left(p):
            bad += f"{wait:.2f} s, {names[i % 3]}: exit {p.returncode}\n{said}"
        if p.returncode == 0:
            bad += "" if job.results() == whole else f"other results after {wait:.2f} s\n"
            job.clear()
    tap.ok(bad == "" and codes.count(75) >= len(codes) // 2,
           f"{len(waits)} times USR1: {codes.count(75)} times exit code 75, and otherwise the job was done",
           bad + str(codes))
    code, said = job.run()
    tap.ok(code == 0 and job.results() == whole, "and the same bits in the end", said)


def end_now(folder):
    """What there is is saved within half a second, and the process is gone."""
    for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        job = Job(folder, every=0)
        for wait in 0.3, 1, 3:  # until there is something to keep, of a machine that has other work as well
            p = job.start(0, [])
            until_it_computes(p)
            time.sleep(wait)
            p.send_signal(sent)
            at = time.monotonic()
            said = p.communicate(timeout=60)[1]
            took = time.monotonic() - at
            if "before there was anything to keep" not in said:
                break
        tap.ok(p.returncode == 75 and len(job.checkpoints()) == 1 and "goes on" in said and
               not os.path.exists(job.out + ".part"),
               f"{sent.name} saves what there is", f"exit {p.returncode}\n{said}")
        tap.ok(took < 2, f"{sent.name} ends it soon", took)
        if sent == signal.SIGTERM:
            code, said = job.run()
            tap.ok(code == 0 and "goes on from" in said, "and the job goes on", said)
        job.clear()
    job = Job(folder)
    p, _ = started(job, 0, [])
    wait_until(job.checkpoints, p)
    p.send_signal(signal.SIGINT)
    p.send_signal(signal.SIGTERM)
    at = time.monotonic()
    p.communicate(timeout=60)
    code, said = job.run()
    tap.ok(code == 0 and p.returncode in (1, 75), "a second signal does no damage", f"{p.returncode}\n{said}")
    job.clear()


def end_now_ranks(folder):
    """mpirun hands its TERM on, and kills a second later."""
    job = Job(folder, every=0, prompts=120)
    for name in ("two replicas", "pipeline of 2"):
        ranks, words = LAYOUTS[name]
        p = job.start(ranks, words)
        until_it_computes(p)
        time.sleep(0.7)
        p.send_signal(signal.SIGTERM)
        said = p.communicate(timeout=60)[1]
        tap.ok(p.returncode != 0 and nobody_left(p) and len(job.checkpoints()) >= 1,
               f"TERM to mpirun: rank 0 saves, {name}", f"exit {p.returncode}\n{said}")
    code, said = job.run()
    tap.ok(code == 0 and "goes on from" in said, "and the job goes on alone", said)


def crash(folder):
    """kill -9 of any rank, one time in twelve of mpirun and one of all ranks at once; a third of the times
    while a checkpoint is written."""
    many = int(os.environ.get("N") or 6)
    job = Job(folder, tokens=300)
    whole = job.run() and job.results()
    job.clear()
    names, bad, killed = list(LAYOUTS), "", {"a rank": 0, "mpirun": 0, "all": 0, "writing": 0}
    for i in range(many):
        name = names[(i + 1) % len(names)]
        ranks, words = LAYOUTS[name]
        p = job.start(ranks, words)
        before = job.checkpoints()
        if i % 3 == 2:
            wait_until(lambda: [n for n in os.listdir(folder) if ".ckpt-" in n and n.endswith(".part")], p)
        else:
            wait_until(lambda: job.checkpoints() != before, p)
            time.sleep(chance.uniform(0, 0.3))
        whom = {0: "mpirun", 1: "all"}.get(i % 12, "a rank")
        victims = {"mpirun": [p.pid], "all": members(p), "a rank": [chance.choice(ranks_of(p) or [p.pid])]}[whom]
        killed[whom] += p.poll() is None
        killed["writing"] += p.poll() is None and i % 3 == 2
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        said = p.communicate(timeout=120)[1]
        if not nobody_left(p):
            bad += f"{name}: processes are left\n"
        if p.returncode == 0:
            bad += "" if job.results() == whole else f"{name}: other results\n"
            job.clear()
        elif p.returncode in (65, 70, 74):
            bad += f"{name}: exit {p.returncode}\n{said}"
    tap.ok(bad == "" and killed["a rank"] > 0, f"{many} times killed ({killed})", bad)
    code, said = job.run()
    tap.ok(code == 0 and job.results() == whole, "and the same bits in the end", said)


cases = {"usr1": usr1, "end_now": end_now, "end_now_ranks": end_now_ranks, "crash": crash}
only = {"long": ["usr1"], "crash": ["crash"]}.get(os.environ.get("SAF_TEST_SIGNALS"), list(cases))
for wanted_case in sys.argv[1:] or only:
    with scratch() as folder:
        cases[wanted_case](folder)
tap.exit()
