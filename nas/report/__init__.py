"""Tables, progress and plots; rich lives here and in the command line only."""
