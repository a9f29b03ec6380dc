"""What the Python tests share: running saf, reading results, TAP lines."""
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAF = os.path.join(ROOT, os.environ.get("BUILD", "build"), "saf")
# For a shell: of a coverage build that may write only small files, the counters go nowhere, not cut.
NO_COUNTERS = "export GCOV_PREFIX=/dev/null GCOV_ERROR_FILE=/dev/null; "
STORIES = os.path.join(ROOT, "jobs", "models", "stories260K.gguf")
SHARED = os.path.join(ROOT, "..", "shared")
PATIENCE = int(os.environ.get("SAF_TEST_PATIENCE", 1))  # times the seconds; more under sanitizers
# Without a profile that somebody measured of this host: layouts are then the same everywhere.
ENV = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", SAF_PROFILES="/nonexistent")


class Tap:
    """Counts and prints `ok` and `not ok`; exit() says whether all was well."""

    def __init__(self):
        self.n = self.failed = 0

    def ok(self, good, name, detail=""):
        self.n += 1
        self.failed += not good
        print(("ok" if good else "not ok"), self.n, "-", name, flush=True)
        if not good and detail:
            print("\n".join("# " + line for line in str(detail).splitlines()), flush=True)
        return good

    def equal(self, got, expected, name):
        return self.ok(got == expected, name, f"got      {got!r}\nexpected {expected!r}")

    def skip(self, name, why):
        self.n += 1
        print("ok", self.n, "-", name, "# SKIP", why, flush=True)

    def exit(self):
        sys.exit(1 if self.failed else 0)


def saf(*args, ranks=0, env=None, timeout=120, stdin="", again=False):
    """Runs saf, under mpirun if ranks > 0. Returns the finished process, output as text. A job is run
    from its start on, unless `again` lets it go on from what earlier runs left."""
    command = [SAF, *map(str, args)]
    if len(args) > 1 and args[0] == "run" and not again:
        command.append("--fresh")
    if ranks:
        command = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
    return subprocess.run(command, cwd=ROOT, env=dict(ENV, **(env or {})), input=stdin, text=True,
                          errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=timeout * PATIENCE)


def job_file(folder, text, name="job.cfg"):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def model(name):
    """Path of a shared model, or None where there are none; STORIES is bundled."""
    path = os.path.join(SHARED, "models", name)
    return path if os.path.exists(path) else None


def watched():
    """Whether saf was built with the address sanitizer, which takes memory and address space itself."""
    with open(SAF, "rb") as f:
        return b"__asan_init" in f.read()


def scratch():
    return tempfile.TemporaryDirectory(prefix="saf-test-")
