"""The parts of the ONNX frontend: bytes, types, folding, and one file of handlers a family of operators."""
