"""What cleans an exported graph, one pass a file; each names what it changes and what holds afterwards."""
