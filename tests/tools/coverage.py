"""Line coverage of a build with gcc's counters, by room and in all, and by parser; exit status 1 where it is
below what the project holds itself to.   coverage.py BUILD [--files]"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LEAST_OF_ALL, LEAST_OF_A_PARSER = 90.0, 95.0
# Where hostile input arrives.
PARSERS = re.compile(r"src/(model/(gguf(?!_write)\w*|tokenizer\w*|pretok\w*)|"
                     r"job/(jobfile|field_value|prompts\w*|source|hostfile\w*)|"
                     r"store/checkpoint\w*)\.c$")


def share(lines):
    return 100.0 * sum(hit for hit, _ in lines) / max(1, sum(n for _, n in lines))


def measure(build):
    """[(file, lines run, lines)] of src/, by gcovr."""
    done = subprocess.run(
        ["gcovr", "--root", ROOT, "--object-directory", build, "--filter", "src/", "--json-summary",
         # the same line in the program and in a test, and headers compiled for each instruction set
         "--gcov-ignore-parse-errors", "--exclude-unreachable-branches", build],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    return [(f["filename"], f["line_covered"], f["line_total"])
            for f in json.loads(done.stdout)["files"]]


def main():
    files = measure(sys.argv[1])
    rooms, parsers = {}, []
    for name, hit, lines in files:
        rooms.setdefault(name.split("/")[1], []).append((hit, lines))
        if PARSERS.search(name):
            parsers.append((name, hit, lines))
        if "--files" in sys.argv:
            print(f"{name:40} {hit:6} of {lines:6} lines {share([(hit, lines)]):6.1f} %")
    for room, lines in sorted(rooms.items()):
        print(f"{'src/' + room:40} {sum(h for h, _ in lines):6} of {sum(n for _, n in lines):6} lines "
              f"{share(lines):6.1f} %")
    whole = share([(h, n) for _, h, n in files])
    of_parsers = share([(h, n) for _, h, n in parsers])
    print(f"{'all parsers':40} {of_parsers:33.1f} %, at least {LEAST_OF_A_PARSER} each")
    print(f"{'all':40} {whole:33.1f} %, at least {LEAST_OF_ALL}")
    short = [f"{name}: {share([(h, n)]):.1f} %" for name, h, n in parsers
             if share([(h, n)]) < LEAST_OF_A_PARSER]
    for line in short:
        print("too little:", line)
    sys.exit(1 if short or whole < LEAST_OF_ALL or not files else 0)


main()
