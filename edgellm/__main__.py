"""Entry point of `edgellm` and `python -m edgellm`. `--version` answers before anything loads."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code (`edgellm.cli.exits` lists them)."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from . import __version__

        sys.stdout.write(f"edgellm {__version__}\n")
        return
    try:
        from .cli import run_command_line

        sys.exit(run_command_line(arguments))
    except KeyboardInterrupt:  # while modules load
        sys.exit(130)


if __name__ == "__main__":
    main()
