"""Token mixers, one family a file."""
