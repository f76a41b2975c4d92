"""Webhooks: a key is told what happens to its jobs, at least once, wherever it may be told."""
