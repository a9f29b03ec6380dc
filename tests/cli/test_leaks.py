"""In a build with the address sanitizer: what MPI keeps by itself is suppressed, and a buffer or a
communicator that saf forgot is still reported."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tools"))
from saftest import ENV, ROOT, Tap, watched  # noqa: E402

tap = Tap()
PROGRAM = os.path.join(ROOT, os.environ.get("BUILD", "build"), "tests", "tools", "leaks")


def leaks(what, ranks):
    command = [PROGRAM, what]
    if ranks:
        command = ["mpirun", "-np", str(ranks), "--oversubscribe", "--bind-to", "none", *command]
    done = subprocess.run(command, env=ENV, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, check=False)
    return done.returncode, done.stdout


for ranks in (0, 1, 2):
    for what, frames in (("nothing", []), ("buffer", ["saf_alloc", "in leak"]),
                         ("communicator", ["saf_comm_dup"] + ["MPI_Comm_dup"] * (ranks > 0))):
        name = f"{ranks or 'no'} rank{'s' * (ranks != 1)} of mpirun: {what} leaked"
        if not watched():
            tap.skip(name, "this is no build with the address sanitizer (make asan)")
            continue
        code, text = leaks(what, ranks)
        if frames:
            missing = [f for f in frames if f not in text]
            tap.ok(code != 0 and "LeakSanitizer" in text and not missing, name,
                   f"exit code {code}, missing {missing}\n{text}")
        else:
            tap.ok(code == 0 and "LeakSanitizer" not in text, name, f"exit code {code}\n{text}")
tap.exit()
