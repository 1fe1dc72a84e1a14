"""Running artifacts for users: the predictor. Imports no torch."""
