"""TensorRT 10, TensorRT 11 and TensorRT-RTX: one builder, one runtime, one table of differences.

``flavours`` is that table; ``preflight``, ``rules`` and ``quantized`` check an ONNX file before anything is loaded;
``network`` and ``precision_check`` say what the parsed network holds; ``plan`` settles a build and ``builder`` does it;
``record`` is the sidecar beside an engine; ``runtime`` runs engines on a GPU.
"""
