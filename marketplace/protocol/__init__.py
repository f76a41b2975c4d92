"""The shared kernel: messages, prices, hashes, phases. Pure: no clock, no random source, no network."""
