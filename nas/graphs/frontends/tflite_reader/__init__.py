"""The parts of the TensorFlow Lite frontend."""
