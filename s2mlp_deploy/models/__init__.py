"""The papers' networks: configurations and registry (no torch), and the torch modules behind them."""
