"""What operator families are made of: activations, norms, convolutions with their fusion, channel attention."""
