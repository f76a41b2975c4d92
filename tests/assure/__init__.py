"""What is known about the contracts beyond their tests: `scripts/assure`."""
