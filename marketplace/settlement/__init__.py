"""Step 6: vouchers over what was delivered, and what the chain has paid."""
