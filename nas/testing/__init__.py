"""Contract suites, importable by third parties."""
