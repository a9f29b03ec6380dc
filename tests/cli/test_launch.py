"""saf launch: started again after a failure or not, hosts that do not answer, signals."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
import h5py  # noqa: E402
from processes import is_running, process_of, ranks_with, wait_until  # noqa: E402
from saftest import ENV, ROOT, SAF, STORIES, Tap, job_file, saf, scratch  # noqa: E402

tap = Tap()

# Stands in for mpirun: notes its words, does what the next line of its script says and exits with
# the code that this begins with.
STAND_IN = """#!/bin/sh
folder={folder}
echo "$*" >>$folder/starts
line=$(sed -n "$(wc -l <$folder/starts)p" $folder/script)
eval "${{line#* }}"
exit ${{line%% *}}
"""

# Used like ssh; reaches this machine by any name, but not hosts that are noted as down.
AGENT = """#!/bin/sh
host=$1
shift
echo "$host" >>{folder}/asked
[ "$host" = slow ] && exec sleep 600
[ -e {folder}/down-$host ] && exit 1
mkdir -p {folder}/tmp-$host
TMPDIR={folder}/tmp-$host exec sh -c "$*"
"""


# Ends with 75 when it gets a signal. (A shell cannot trap what was ignored when it started.)
HEED = """
import os, signal, sys
def heed(*_):
    open("{folder}/got", "w").write("{name}")
    os._exit(75)
signal.signal(signal.SIG{name}, heed)
open("{folder}/ready", "w").close()
while True:
    signal.pause()
"""


class Place:
    """A folder with a job, its results file, and what stands in for programs."""

    def __init__(self, name, model=STORIES, **keys):
        self.folder = os.path.join(top, name)
        os.mkdir(self.folder)
        self.out = os.path.join(self.folder, "out.h5")
        self.job = job_file(self.folder, f'job = "generate"; model: {{ path = "{model}"; }}; '
                            f'input: {{ prompts = "jobs/data/demo.txt"; }}; '
                            f'generate: {{ max_tokens = {keys.get("tokens", 8)}; ignore_eos = true; }}; '
                            f'output: {{ file = "{self.out}"; }};')
        self.env = {}

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def read(self, name):
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def stand_in(self, *script):
        """mpirun that does these lines, one a start; the last one from then on."""
        self.write("script", "\n".join(script + script[-1:] * 9) + "\n")
        return ["--mpirun", self.write("mpirun", STAND_IN.format(folder=self.folder), 0o755)]

    def agent(self, *hosts):
        """A hostfile of these lines, reached by the agent."""
        path = self.write("agent", AGENT.format(folder=self.folder), 0o755)
        self.env["OMPI_MCA_plm_rsh_agent"] = path
        return ["--hostfile", self.write("hosts", "\n".join(hosts) + "\n")]

    def down(self, *hosts):
        for host in hosts:
            self.write(f"down-{host}", "")

    def starts(self):
        return self.read("starts").splitlines()

    def launch(self, *options, words=()):
        return saf("launch", *options, self.job, *words, env=self.env)

    def ckpt(self, number):
        return f"touch {self.out}.ckpt-{number}"


class Running:
    """saf launch under way."""

    def __init__(self, place, *options, words=()):
        self.place = place
        self.log = os.path.join(place.folder, "log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen([SAF, "launch", *options, place.job, *words], cwd=ROOT,
                                            env=dict(ENV, **place.env), stdout=log, stderr=log)

    def said(self):
        return self.place.read("log")

    def mpirun(self):
        """What saf launch has started, as long as it is there."""
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            process = process_of(pid)
            if process and process[2] == self.process.pid and process[0] != "saf":
                return pid
        return None

    def ranks(self, number):
        """The processes of so many ranks, once they run the job."""
        found = []

        def there():
            found[:] = ranks_with(self.place.job)
            return len(found) == number or self.process.poll() is not None
        wait_until(there)
        wait_until(lambda: "loaded" in self.said() or self.process.poll() is not None)
        return found

    def end(self, seconds=30):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def hash_of(path):
    with h5py.File(path) as f:
        return f.attrs["tokens_sha256"], f.attrs["ranks"]


def codes():
    for code in 0, 2, 65, 66, 70, 73, 74, 75:
        place = Place(f"code-{code}")
        done = place.launch(*place.stand_in(f"{code} :"))
        tap.ok(done.returncode == code and len(place.starts()) == 1,
               f"exit code {code} comes out and nothing is started again",
               f"{done.returncode}, {place.starts()}: {done.stderr}")
    for code in 1, 124, 137, 213:
        place = Place(f"code-{code}")
        done = place.launch(*place.stand_in(f"{code} :"))
        tap.ok(done.returncode == code and len(place.starts()) == 2 and
               f"exit code {code}; given up: two attempts in a row have left no newer checkpoint"
               in done.stderr, f"exit code {code}: twice in vain, then it is given up",
               f"{done.returncode}, {place.starts()}: {done.stderr}")
    place = Place("killed")
    done = place.launch("--retries", 0, *place.stand_in("1 kill -KILL $$"))
    tap.equal((done.returncode, len(place.starts())), (137, 1),
              "--retries 0 starts once; a signal that mpirun dies of is 128 and its number")


def checkpoints():
    place = Place("gain")
    place.write("out.h5.ckpt-9x", "")
    place.write("other.h5.ckpt-99", "")
    script = [f"1 {place.ckpt(n)}" for n in (1, 2, 10)]
    begin = time.time()
    done = place.launch("--retries", 2, *place.stand_in(*script), words=["--fresh", "run.chunk=64"])
    took = time.time() - begin
    starts = place.starts()
    tap.ok(done.returncode == 1 and len(starts) == 3 and "exit code 1; given up\n" in done.stderr,
           "as long as there is a newer checkpoint it goes on, up to --retries times",
           f"{done.returncode}, {starts}: {done.stderr}")
    tap.ok(2.9 < took < 6, "pauses grow: 1 s, 2 s", took)
    tap.ok(starts[0].endswith(f"saf run {place.job} --fresh run.chunk=64") and
           all(s.endswith(f"saf run {place.job} run.chunk=64") for s in starts[1:]),
           "only what has left no checkpoint yet starts --fresh again", starts)
    place = Place("gain-between")
    done = place.launch("--retries", 9, *place.stand_in("1 :", f"1 {place.ckpt(1)}", "1 :", "137 :"))
    tap.equal((done.returncode, len(place.starts())), (137, 4),
              "two attempts in vain end it only if they follow each other")
    place = Place("late")
    done = place.launch(*place.stand_in("1 :", "0 :"))
    tap.equal((done.returncode, len(place.starts())), (0, 2), "a second attempt that is done is enough")


def usage():
    place = Place("usage")
    place.write("bad", "h1 slots=2\nh2 slots=many\n")
    for options, code, says in (
            (["--retries", "-1"], 2, '--retries: expected a number, 0 to 1000000, got "-1"'),
            (["--retries", "x"], 2, 'got "x"'),
            (["-n", "0"], 2, '-n: expected a number of ranks'),
            (["-n", "99999999999999999999"], 2, '-n: expected a number of ranks'),
            (["--bogus"], 2, 'unknown option, or one without its value: "--bogus"'),
            (["--mpirun", "mpirun 'x"], 2, "a quote that is not closed: 'x"),
            (["--hostfile", f"{place.folder}/bad"], 65, f"{place.folder}/bad:2: expected a number of slots"),
            (["--hostfile", f"{place.folder}/none"], 66, f"{place.folder}/none: No such file"),
            (["--mpirun", f"{place.folder}/none"], 1, f"cannot start {place.folder}/none: No such file")):
        done = place.launch(*options)
        tap.ok(done.returncode == code and says in done.stderr, f"{' '.join(options[:1])}: exit code {code}: {says[:40]}",
               f"{done.returncode}: {done.stderr}")
    for words, code in ((["generate.max_tokens=x"], 2), (["layout.nothing=1"], 2)):
        done = place.launch(*place.stand_in("0 :"), words=words)
        tap.equal((done.returncode, place.starts()), (code, []), f"a wrong job starts nothing: {words[0]}")
    done = saf("launch")
    tap.ok(done.returncode == 2 and "needs a job file" in done.stderr, "a job file is needed", done.stderr)
    done = saf("launch", "--help")
    tap.ok(done.returncode == 0 and "--hostfile" in done.stdout, "--help", done.stderr)


def dry_run():
    place = Place("dry")
    hosts = place.agent("ha slots=2", "hb slots=2")[1]
    plain = ["mpirun", "--bind-to", "none"]
    run = [SAF, "run", place.job]
    for options, words in (
            ([], [*plain, "-n", "1", *run]),
            (["-n", "3"], [*plain, "-n", "3", *run]),
            (["-np", "3"], [*plain, "-n", "3", *run]),
            (["--hostfile", hosts], [*plain, "--map-by", "slot", "--hostfile", hosts, *run]),
            (["--mpirun", "--oversubscribe --bind-to core -np 2"],
             ["mpirun", "--oversubscribe", "--bind-to", "core", "-np", "2", *run]),
            (["--mpirun", "/opt/mpi/bin/mpirun -v 'a b'", "-n", "2"],
             ["/opt/mpi/bin/mpirun", "-v", "'a b'", "-n", "2", *run])):
        done = place.launch("--dry-run", *options)
        tap.equal((done.returncode, done.stdout), (0, " ".join(words) + "\n"), f"--dry-run {options}")
    done = place.launch("--dry-run", words=["input.prompt=it's", "--dry-run"])
    tap.ok(done.stdout.endswith("'input.prompt=it'\\''s' --dry-run\n"), "words are quoted for a shell", done.stdout)
    tap.equal(place.read("asked"), "", "--dry-run asks no host")


def hosts_left_out():
    place = Place("hosts")
    options = place.agent("# a lab", "ha slots=2 max_slots=4", "hb slots=3", "localhost slots=1", "hb slots=1")
    copy = f"cp $(echo \"$*\" | sed 's/.*--hostfile \\([^ ]*\\).*/\\1/') {place.folder}/used"
    place.down("hb")
    done = place.launch(*options, "-n", "6", *place.stand_in(f"0 {copy}"))
    tap.ok(done.returncode == 0 and "hb: no answer; 1 of 3 hosts are left out" in done.stderr and
           place.read("used") == "ha slots=2 max_slots=4\nlocalhost slots=1\n" and "-n 3 " in place.starts()[0],
           "a host that does not answer is left out, with its ranks",
           f"{done.returncode}, {place.starts()}, {place.read('used')}: {done.stderr}")
    tap.equal(sorted(place.read("asked").split()), ["ha", "hb"], "each host but this one is asked once")
    name = place.starts()[0].split("--hostfile ")[1].split()[0]
    tap.ok(not os.path.exists(name) and name.startswith("/"), "the hostfile of the rest is removed", name)
    os.remove(os.path.join(place.folder, "starts"))
    up = f"rm -f {place.folder}/down-hb"
    done = place.launch(*options, *place.stand_in(f"1 {copy}; {up}", "0 :"))
    tap.ok(done.returncode == 0 and "hb answers again" in done.stderr and
           f"--hostfile {place.folder}/hosts" in place.starts()[1],
           "it is used again when it answers", f"{done.returncode}, {place.starts()}: {done.stderr}")
    os.remove(os.path.join(place.folder, "starts"))
    place.down("ha", "hb")
    options = place.agent("ha slots=2", "hb slots=3")
    done = place.launch(*options, *place.stand_in("0 :"))
    tap.ok(done.returncode == 1 and not place.starts() and "no host of" in done.stderr and "given up" in done.stderr,
           "no host answers", f"{done.returncode}, {place.starts()}: {done.stderr}")
    options = place.agent("localhost", "slow slots=3")
    begin = time.time()
    done = place.launch(*options, *place.stand_in("0 :"))
    took = time.time() - begin
    tap.ok(done.returncode == 0 and 9 < took < 15 and "slow: no answer" in done.stderr,
           "a host that says nothing is waited for ten seconds", f"{took}: {done.stderr}")
    place.env["SLURM_JOB_ID"] = "1"
    del place.env["OMPI_MCA_plm_rsh_agent"]
    done = place.launch(*options, *place.stand_in("0 :"))
    tap.equal((done.returncode, done.stderr), (0, ""), "under Slurm hosts are Slurm's affair")


def layout_of_all_hosts():
    place = Place("layout")
    options = place.agent("ha slots=1", "hb slots=1", "hc slots=1")
    place.down("hc")
    done = place.launch(*options, words=["layout.pipeline=3"])
    tap.ok(done.returncode == 2 and "the job sets layout.* for all hosts" in done.stderr,
           "a layout that does not fit the rest is named", f"{done.returncode}: {done.stderr}")
    done = place.launch(*options)
    tap.ok(done.returncode == 0 and hash_of(place.out)[1] == 2, "without one the rest has a layout of its own",
           f"{done.returncode}: {done.stderr}")


def job_with_lost_rank(alone):
    place = Place("lost-rank", model=large, tokens=120)
    job = Running(place, "-n", "2", "--mpirun", "--oversubscribe", words=["layout.threads=1"])
    ranks = job.ranks(2)
    os.kill(ranks[1], signal.SIGKILL)
    code = job.end(120)
    tap.ok(code == 0 and "exit code 137; starting again in 1 s (1 of 3)" in job.said() and
           hash_of(place.out)[0] == alone and not any(map(is_running, ranks)),
           "a rank is killed: the job is started again and done, with the same tokens", f"{code}: {job.said()}")


def job_with_lost_host(alone):
    place = Place("lost-host", model=large, tokens=120)
    job = Running(place, *place.agent("ha slots=1", "hb slots=1"), words=["layout.threads=1"])
    ranks = job.ranks(2)
    place.down("hb")
    os.kill(ranks[-1], signal.SIGKILL)
    code = job.end(120)
    tap.ok(code == 0 and "hb: no answer" in job.said() and hash_of(place.out) == (alone, 1),
           "a host is lost: the job ends on the rest, with the same tokens", f"{code}: {job.said()}")


def signals_to_mpirun():
    for number, name in ((signal.SIGUSR1, "USR1"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP")):
        place = Place(f"signal-{name}")
        place.write("heed.py", HEED.format(name=name, folder=place.folder))
        job = Running(place, *place.stand_in(f"1 exec {sys.executable} {place.folder}/heed.py"))
        wait_until(lambda: os.path.exists(f"{place.folder}/ready"))
        job.process.send_signal(number)
        code = job.end(10)
        tap.ok(code == 75 and place.read("got") and len(place.starts()) == 1,
               f"{name} goes on to mpirun, and nothing is started again", f"{code}: {job.said()}")
    place = Place("signal-early")
    job = Running(place, *place.stand_in(f"138 touch {place.folder}/ready; sleep 1"))
    wait_until(lambda: os.path.exists(f"{place.folder}/ready"))
    job.process.send_signal(signal.SIGUSR1)
    tap.equal((job.end(10), len(place.starts())), (75, 1), "ranks that die of USR1 had not begun: exit code 75")
    place = Place("signal-twice")
    job = Running(place, *place.stand_in(f"1 trap '' INT TERM; touch {place.folder}/ready; "
                                         "while :; do sleep 0.05; done"))
    wait_until(lambda: os.path.exists(f"{place.folder}/ready"))
    stand_in = job.mpirun()
    job.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    waits = job.process.poll() is None
    begin = time.time()
    job.process.send_signal(signal.SIGINT)
    code = job.end(10)
    tap.ok(waits and code == 130 and time.time() - begin < 3 and not is_running(stand_in),
           "INT again ends at once what does not heed the first", f"{waits}, {code}: {job.said()}")
    place = Place("signal-pause")
    job = Running(place, *place.stand_in("1 :"))
    wait_until(lambda: "starting again" in job.said())
    job.process.send_signal(signal.SIGTERM)
    tap.equal((job.end(5), len(place.starts())), (75, 1), "TERM between two attempts: exit code 75")
    place = Place("signal-asking")
    job = Running(place, *place.agent("slow"), *place.stand_in("0 :"))
    wait_until(lambda: place.read("asked"))
    time.sleep(0.1)
    agent = job.mpirun()
    job.process.send_signal(signal.SIGTERM)
    tap.ok(job.end(5) == 75 and not place.starts() and agent and not is_running(agent),
           "TERM while hosts are asked: exit code 75, and no agent is left", job.said())


def signals_to_ranks():
    for number, name in ((signal.SIGTERM, "TERM"), (signal.SIGINT, "INT"), (signal.SIGKILL, "KILL")):
        place = Place(f"ranks-{name}", model=large, tokens=1200)
        job = Running(place, "-n", "2", "--mpirun", "--oversubscribe", words=["layout.threads=1"])
        pids = job.ranks(2)
        pids.append(job.mpirun())
        job.process.send_signal(number)
        code = job.end(20)
        gone = wait_until(lambda: not any(map(is_running, pids)), 6 if number == signal.SIGKILL else 0.1)
        tap.ok(len(pids) == 3 and code not in (None, 0) and gone and "starting again" not in job.said(),
               f"saf launch gets {name}: neither mpirun nor ranks are left", f"{code}, {pids}: {job.said()}")


def orphans():
    """The launcher dies and leaves a rank, which does not hear that: it is stopped."""
    place = Place("orphans", model=large, tokens=1200)
    job = Running(place, "--retries", "0", *place.stand_in(
        f'1 setsid {SAF} run {place.job} & echo $! >{place.folder}/rank; sleep 1; kill -STOP $!; kill -KILL $$'))
    wait_until(lambda: place.read("rank").endswith("\n"))
    rank = int(place.read("rank"))
    code = job.end(30)
    tap.ok(code == 137 and not is_running(rank), "a rank that outlives mpirun is ended", f"{code}: {job.said()}")


with scratch() as top:
    large = os.path.join(top, "large.gguf")
    made = saf("model", "make", large, "--arch", "qwen3", "--shape", "8:512:8:4:64:1536", "--type", "f16",
               "--seed", 1)
    tap.ok(made.returncode == 0, "a model is made", made.stderr)
    one = Place("alone", model=large, tokens=120)
    ran = saf("run", one.job)
    tap.ok(ran.returncode == 0, "a job runs alone", ran.stderr)
    tokens = hash_of(one.out)[0]
    for part in (usage, dry_run, codes, checkpoints, hosts_left_out, layout_of_all_hosts,
                 lambda: job_with_lost_rank(tokens), lambda: job_with_lost_host(tokens), signals_to_mpirun,
                 signals_to_ranks, orphans):
        part()
tap.exit()
