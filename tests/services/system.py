"""Name the system packages that the tests need and this machine lacks. Standard library only."""

from __future__ import annotations

import shutil
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
    "go": ("golang", "building Helm and the OpenTelemetry collector; 1.21 or later fetches the release it needs"),
    "git": ("git", "the checkout"),
}


def found(program: str) -> bool:
    if shutil.which(program):
        return True
    return program == "postgres" and any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


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
