"""`python -m engine`: the command `engine`."""

from engine.cli.main import main

if __name__ == "__main__":
    main()
