"""The gateway's OpenAI URL on the buyer's own machine: calls are ordered, verified and paid with its key."""
