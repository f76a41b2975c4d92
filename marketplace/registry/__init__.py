"""Accounts, sessions and nodes, as folds of the chain's events."""
