"""Packages that people search with, a file each."""
