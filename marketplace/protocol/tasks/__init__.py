"""The tasks of the market, one file each: what is asked, what it costs at most, what answers it."""
