"""From a PyTorch module to ONNX files: capture, canonical graph, forms, files."""
