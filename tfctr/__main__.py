"""`python -m tfctr` is the `tfctr` program."""

from tfctr.cli import main

if __name__ == "__main__":
    main()
