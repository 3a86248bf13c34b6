"""One set of weights for every member of a space."""
