"""Interfaces and creation code of our contracts; `python -m marketplace.chain.abi` writes them anew."""
