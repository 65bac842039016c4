"""Environments, one file per library that provides them."""
