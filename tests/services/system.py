"""Name the system packages that the tests need and this machine lacks. Standard library only."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

#: program -> (Debian package, what for)
PROGRAMS = {
    "java": ("openjdk-17-jre-headless", "the Kafka broker"),
    "mvn": ("maven", "fetching the Kafka broker"),
    "postgres": ("postgresql", "the audit store"),
    "prometheus": ("prometheus", "dashboards and alert rules"),
    "promtool": ("prometheus", "alert rules"),
    "chromium": ("chromium", "the pages, as a browser shows them"),
    "go": (
        "golang",
        "1.21 or later, which fetches the release that it needs, builds Helm and the OpenTelemetry Collector; "
        "Debian 12 has it in bookworm-backports only: apt-get install -t bookworm-backports golang",
    ),
    "git": ("git", "the checkout"),
}


#: The first Go that fetches the release that a go.mod names.
GO_MIN = (1, 21)


def found(program: str) -> bool:
    path = shutil.which(program)
    if path:
        return program != "go" or go_version(path) >= GO_MIN
    return program == "postgres" and any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def go_version(path: str) -> tuple[int, int]:
    told = subprocess.run([path, "version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"go(\d+)\.(\d+)", told)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def main() -> int:
    missing = {program: needed for program, needed in PROGRAMS.items() if not found(program)}
    for program, (package, purpose) in missing.items():
        print(f"missing: {program} ({purpose}); Debian package {package}", file=sys.stderr)
    if missing:
        packages = " ".join(sorted({package for package, _ in missing.values()}))
        print(f"install them with: apt-get install {packages}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
