"""Wattline's market: gateway, keeper, buyer SDK and command line."""
