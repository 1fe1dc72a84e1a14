"""What the user names, and the checkpoint, become a module with example inputs."""
