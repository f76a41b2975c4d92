"""The gateway's HTTP and WebSocket edge: with the buyer's proxy the only FastAPI of the market."""
