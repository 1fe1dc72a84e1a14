"""What distinguishes two ONNX graphs: nodes aligned within modules, weights compared by value."""
