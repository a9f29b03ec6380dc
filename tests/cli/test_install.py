"""make install: a program of a dozen lines builds against what was installed, by pkg-config alone, and
runs; make uninstall leaves nothing."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from saftest import ENV, ROOT, STORIES, Tap, saf, scratch  # noqa: E402

tap = Tap()
PROGRAM = r"""
#include <saf/core.h>
#include <saf/model.h>
#include <stdio.h>

int main(int argc, char **argv) {
    saf_gguf *g = NULL;
    if (argc != 2 || saf_gguf_open(argv[1], &g) != SAF_OK) {
        fprintf(stderr, "%s\n", saf_error_text());
        return 1;
    }
    printf("%d tensors\n", (int)saf_gguf_tensor_count(g));
    saf_gguf_close(&g);
    return 0;
}
"""


def do(name, *command, env=None):
    run = subprocess.run(command, cwd=ROOT, env=dict(ENV, **(env or {})), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=250, check=False)
    tap.ok(run.returncode == 0, name, run.stdout)
    return run.stdout.strip()


def make(name, *words):
    """make as saf was built: a commit made since then would have it linked anew under the tests beside this one."""
    build = os.environ.get("BUILD", "build")
    with open(os.path.join(ROOT, build, "commit"), encoding="utf-8") as f:
        do(name, "make", "BUILD=" + build, "COMMIT=" + f.read().strip(), *words)


with scratch() as folder:
    there = os.path.join(folder, "there")
    make("make install", "install", "PREFIX=" + there)
    saf_there = os.path.join(there, "bin", "saf")
    tap.equal(do("the installed saf runs", saf_there, "--version"), saf("--version").stdout.strip(),
              "and is this version")
    source, program = os.path.join(folder, "a.c"), os.path.join(folder, "a")
    with open(source, "w", encoding="utf-8") as f:
        f.write(PROGRAM)
    found = {"PKG_CONFIG_PATH": os.path.join(there, "lib", "pkgconfig")}
    flags = do("pkg-config knows saf", "pkg-config", "--cflags", "--libs", "saf", env=found).split()
    tap.equal("saf " + do("and its version", "pkg-config", "--modversion", "saf", env=found),
              saf("--version").stdout.strip(), "which is this version")
    do("a program builds", os.environ.get("CC", "gcc"), "-Wall", "-Wextra", "-Werror", "-o", program,
       source, *flags)
    tap.equal(do("and runs", program, STORIES), "48 tensors", "and reads a model")
    make("make uninstall", "uninstall", "PREFIX=" + there)
    left = [name for _, _, files in os.walk(there) for name in files]
    tap.equal(left, [], "nothing is left")
    make("make install with DESTDIR", "install", "PREFIX=/opt/saf", "DESTDIR=" + folder)
    with open(os.path.join(folder, "opt", "saf", "lib", "pkgconfig", "saf.pc"), encoding="utf-8") as f:
        tap.equal(f.readline(), "prefix=/opt/saf\n", "saf.pc has the final place")
tap.exit()
