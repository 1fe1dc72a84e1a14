"""What every room that works on ONNX graphs shares: editing, tables of operators, names of opsets and axes."""
