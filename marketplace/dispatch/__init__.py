"""Step 3: orders to nodes, leases, failover, and what comes back."""
