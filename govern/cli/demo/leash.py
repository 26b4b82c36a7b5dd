"""Tie a program's life to its parent's, then become it: `python -IS leash.py PARENT_PID PROGRAM ARGUMENT...`.

The kernel sends SIGKILL to this process when the parent is gone (prctl(2), PR_SET_PDEATHSIG), and keeps doing so for
the program that it becomes. So not even kill -9 of the demo leaves a server behind. Where there is no prctl, the
program is merely started.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")  # it went before the line above, so that no signal will come
    os.execv(program[0], program)  # noqa: S606 - becoming another program is what this file is for


if __name__ == "__main__":
    main()
