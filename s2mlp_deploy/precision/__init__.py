"""The number types a graph computes with: float16 with float32 islands, int8 and fp8 with explicit Q/DQ."""
