"""Entry point of `edgellm` and `python -m edgellm`. `--version` answers before anything loads."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code (`edgellm.cli.exits` lists them)."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from . import __version__

        try:
            sys.stdout.write(f"edgellm {__version__}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)
        return
    try:
        from .cli import run_command_line

        sys.exit(run_command_line(arguments))
    except KeyboardInterrupt:  # while modules load
        sys.exit(130)


if __name__ == "__main__":
    main()
