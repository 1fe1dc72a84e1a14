"""What runs an artifact: one protocol, a file per runtime."""
