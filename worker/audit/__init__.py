"""Checks other nodes' work: computes an answer again from its receipt."""
