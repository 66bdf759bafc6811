"""Entry point of `python -m nbt`."""

from nbt.cli import main

if __name__ == "__main__":
    main()
