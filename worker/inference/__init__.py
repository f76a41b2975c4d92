"""Runs models: one engine for each, many jobs at once, answers as chunks that can be resumed."""
