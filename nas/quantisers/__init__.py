"""Post-training quantisation methods, one file each."""
