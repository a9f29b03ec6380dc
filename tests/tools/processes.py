"""Processes under test, as /proc shows them."""
import os
import re
import time


def process_of(pid):
    """Name, state and parent; None when it is gone. (A bare machine has no `ps`.)"""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            before, after = f.read().rsplit(")", 1)
    except OSError:
        return None
    state, parent = after.split()[:2]
    return before.split("(", 1)[1], state, int(parent)


def is_running(pid):
    """Not gone, and no zombie that nobody has asked about yet."""
    process = process_of(pid)
    return process is not None and process[1] not in "ZX"


def rank_of(pid):
    """A process's number among those that MPI has started; None if it is no such process, nor for a
    moment while saf starts itself again."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            rank = re.search(rb"(?:^|\0)OMPI_COMM_WORLD_RANK=(\d+)", f.read())
    except OSError:
        return None
    return int(rank.group(1)) if rank else None


def ranks_where(condition):
    """The ranks' processes by rank, of those saf processes for whose id and parent this holds."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        process = process_of(pid)
        if process and process[0] == "saf" and condition(pid, process[2]):
            rank = rank_of(pid)
            if rank is not None:
                found.append((rank, pid))
    return [pid for _, pid in sorted(found)]


def ranks_of(launcher):
    """Those that are children of mpirun, or of its daemon on a host."""
    return ranks_where(lambda pid, parent: parent == launcher)


def ranks_with(word):
    """Those that have this word on their command line."""
    def has_word(pid, parent):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                return word.encode() in f.read().split(b"\0")
        except OSError:
            return False
    return ranks_where(has_word)


def wait_until(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        if time.time() > end:
            return False
        time.sleep(0.002)
    return True
