"""Data, supernets, evaluators, and how far a supernet's ranking can be trusted."""
