"""Shim for a checkout: `python cli.py …` is `nas …`."""

from nas.cli import main

if __name__ == "__main__":
    main()
