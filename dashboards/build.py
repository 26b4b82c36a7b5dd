"""`python -m dashboards.build` writes the dashboard and the rules; `--check` says whether they are up to date."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.drift import dashboard
from dashboards.rules import rules_yaml

ROOT = Path(__file__).parents[1]
#: The chart carries copies, because Helm reads no file outside of a chart.
FOLDERS = (ROOT / "dashboards" / "generated", ROOT / "charts" / "govern" / "files")


def generated() -> Mapping[str, str]:
    """File name -> text."""
    drift = json.dumps(dashboard().build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
    return {"drift.json": f"{drift}\n", "rules.yaml": rules_yaml()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [
        (folder / name, text)
        for folder in FOLDERS
        for name, text in generated().items()
        if not (folder / name).exists() or (folder / name).read_text() != text
    ]
    for path, text in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
