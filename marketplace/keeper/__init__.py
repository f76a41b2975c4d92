"""Loops beside the HTTP server: follow the chain, pump transactions out, compare, keep deadlines."""
