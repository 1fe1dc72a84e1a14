"""From a PyTorch module to a functional program: torch.export, checks, hazards, source lines."""
