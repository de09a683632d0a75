"""Writes the steps of a build, and prints them by stages: a line each, `WORK DIGEST,DIGEST,...`.

Steps of one line need nothing but those of lines before, so that any queue can run a line at once.

    python examples/fleet/stages.py fleet.toml [URL]

URL: where steps are sent and fetched, as with `edgellm fleet step --artefacts URL`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgellm.converters.fleet import read_fleet, write_steps


def main(manifest: Path, artefacts: str = "") -> None:
    fleet = read_fleet(manifest)
    for stage in write_steps(fleet, artefacts):
        print(fleet.work_dir.absolute(), ",".join(stage))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
