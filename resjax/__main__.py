"""The command line."""

from resjax.console.command_line import main

if __name__ == "__main__":
    main()
