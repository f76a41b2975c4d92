"""The gateway's HTTP and WebSocket edge: the only FastAPI of the market."""
