"""OpenVINO: running ONNX files and files compiled ahead of time. Never imports torch or onnx."""
