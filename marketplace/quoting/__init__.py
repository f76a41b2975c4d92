"""Step 1: which offers fit a request, and what each costs at most."""
