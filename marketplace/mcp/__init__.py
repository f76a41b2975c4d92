"""The MCP server: six tools for agents, on the buyer's own machine and at the gateway."""
