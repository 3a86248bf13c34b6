"""Training-free scores, a file each."""
