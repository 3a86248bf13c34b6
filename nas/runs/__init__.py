"""Runs: from a request to the files that answer it, resumable in every phase."""
