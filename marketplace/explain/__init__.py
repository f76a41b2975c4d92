"""Prose that the code carries along, so that an offline install can explain itself."""
