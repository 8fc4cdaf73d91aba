"""Training and evaluation runs: the only home of Lightning, and with the command line the only home of Hydra."""
