"""A distribution of plug-ins, one file each; `tests/structure/test_extension.py` installs it, and the site shows its files."""
