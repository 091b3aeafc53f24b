"""`make bench`: measure, print, and with --write replace docs/benchmarks.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench import api, cluster, fullnode, growth, hostports, network, podstart, recording, report, streams

PAGE = Path(__file__).parents[2] / "docs/benchmarks.md"
BENCHES: dict[str, Callable[[], list[report.Section]]] = {
    "podstart": podstart.measure,
    "growth": growth.measure,
    "streams": streams.measure,
    "recording": recording.measure,
    "network": network.measure,
    "hostports": hostports.measure,
    "api": api.measure,
    "cluster": cluster.measure,
    "fullnode": fullnode.measure,
}


def main() -> None:
    """Run the benches named on the command line, all without names."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("benches", nargs="*", choices=[*BENCHES, []], help="which ones; all if none is named")
    parser.add_argument("--write", action="store_true", help="replace docs/benchmarks.md")
    arguments = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    where = report.machine()
    sections = []
    for name in arguments.benches or BENCHES:
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        sections += BENCHES[name]()
    page = report.render(where, sections)
    print(page)
    if arguments.write:
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
