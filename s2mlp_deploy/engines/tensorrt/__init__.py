"""TensorRT 10, TensorRT 11 and TensorRT-RTX: one builder, one runtime, one table of differences.

``flavours`` is that table; ``preflight``, ``rules`` and ``quantized`` judge an ONNX file before anything is loaded;
``network`` and ``promise`` say what the parsed network holds; ``builder`` makes engine files; ``record`` is the sidecar
beside them; ``runtime`` runs them on a GPU.
"""
