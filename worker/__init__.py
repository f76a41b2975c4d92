"""A provider's node: runs models for pay."""
