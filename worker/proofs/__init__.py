"""Work that can be checked: how tokens are drawn, what is committed to, and how an auditor checks it."""
