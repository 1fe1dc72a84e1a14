"""The demonstration: handwritten digits, a network trained on them, and the main job run on both."""
