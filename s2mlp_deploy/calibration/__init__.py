"""From collections of pictures to batches, ranges and the places of quantisation."""
