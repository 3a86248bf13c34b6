"""Edits of a segment's module: fewer channels inside, runs of convolutions as one, a stitch to another network."""
