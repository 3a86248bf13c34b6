"""Channel mixers, one family a file."""
