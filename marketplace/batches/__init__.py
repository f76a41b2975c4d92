"""Files of calls: what all lines can cost together, and what becomes of each. The keeper places them."""
