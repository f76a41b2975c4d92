"""Accounts, sessions, nodes and names of models, as folds of the chain's events."""
