"""The command line."""

from resjax.command_line import main

if __name__ == "__main__":
    main()
