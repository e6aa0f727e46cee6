"""The command line."""

import sys

from resjax.command_line import execute, guarded


def main() -> None:
    """Carry out the command that was given, and exit with its code."""
    sys.exit(guarded(lambda: execute(sys.argv[1:])))


if __name__ == "__main__":
    main()
