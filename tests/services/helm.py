"""Real Helm, built once by Go. `python tests/services/helm.py ARGUMENTS` runs it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from tests.services.process import ServiceError, require

CACHE = Path(__file__).parents[2] / ".cache" / "bin"
VERSION = "v4.3.1"


def helm() -> Path:
    """Helm's program; built once (under two minutes on two cores). Parallel callers wait for each other."""
    program = CACHE / f"helm-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            go = require("go", package="golang-go", folders=["/usr/local/go/bin"])
            command = [go, "install", f"helm.sh/helm/v4/cmd/helm@{VERSION}"]
            environment = {**os.environ, "GOBIN": str(CACHE)}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise ServiceError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
            (CACHE / "helm").rename(program)
    return program


if __name__ == "__main__":
    sys.exit(subprocess.run([helm(), *sys.argv[1:]], check=False).returncode)
