"""OpenAI's bodies and answers, for the gateway and for the proxy on a buyer's machine."""
