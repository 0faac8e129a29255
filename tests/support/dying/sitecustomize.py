"""Ends processes at counted file operations: Python runs this first in a process that finds this folder.

So worker processes die too, which begin with nothing of the tests. The processes of a command count together:
each operation on a path of the store with a certain name in it is one byte in the file of that name, and
whoever writes the n-th one dies there, or ends the process that the command began as, or sleeps and lets no
other thread of its process run.
"""

import ctypes
import json
import os
import signal
import sys

SETTINGS = "ABLATION_TEST_DEATHS"
# What Python says before it changes or reads a file; writes themselves fall between these moments.
EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
STAGES = ("data", "base", "train", "lens", "evaluate", "probe", "intervene")
ASLEEP = 4.0  # seconds


def count(root, counts, deaths, parent):
    """Count this process's operations below `root`; deaths: by name, at which one, and what happens."""
    files, flags = {}, os.O_APPEND | os.O_CREAT | os.O_WRONLY

    def hook(event, arguments):
        if event not in EVENTS or not (path := str(arguments[0])).startswith(f"{root}/"):
            return
        for name in {part for part in path[len(root) :].split("/") if part in STAGES or part in deaths}:
            if name not in files:
                files[name] = os.open(f"{counts}/{name}", flags)
            os.write(files[name], b".")
            last, what = deaths.get(name, (0, ""))
            if os.lseek(files[name], 0, os.SEEK_CUR) == last:
                happen(f"{name} {last}", what)

    def happen(when, what):
        first = os.getpid() == parent
        alone = os.getppid() != parent  # the first process, or one that has outlived it
        if what != "asleep":
            what = "parent" if first else "worker" if alone else what
        said = os.open(f"{counts}/deaths", flags)
        os.write(said, f"{when} {what}\n".encode())
        os.close(said)
        if what == "asleep":
            ctypes.PyDLL(None).usleep(int(ASLEEP * 1e6))  # which keeps the lock of all threads
        if what in ("parent", "both"):
            os.kill(parent, signal.SIGKILL)
        if what in ("worker", "both"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if SETTINGS in os.environ:
    count(**json.loads(os.environ[SETTINGS]))
