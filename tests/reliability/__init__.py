"""Attacks, random input and bad input: what must be refused is, and nothing else happens."""
