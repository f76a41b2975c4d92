"""The chain: reads at a block, calls, one nonce owner per key, and the only web3."""
