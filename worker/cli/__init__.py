"""`watt node …`."""
