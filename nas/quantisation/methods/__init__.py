"""Quantisation methods: one file each."""
