"""Searches for hyperparameters, on top of `train` and `Trainer`: nothing below knows of them."""
