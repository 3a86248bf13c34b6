"""What graphs are made from: traced modules and ONNX files."""
