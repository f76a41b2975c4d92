"""The `watt` command. Modules here import nothing heavy until their command runs."""
