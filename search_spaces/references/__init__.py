"""Published networks as named architectures, one system a file."""
