"""Step 2: whose money pays an order: keys, sessions, and opening more of them."""
