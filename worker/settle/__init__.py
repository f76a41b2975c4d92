"""Vouchers in, settle transactions out."""
