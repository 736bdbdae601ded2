"""Beside attention: sparse patterns, and layers with a state of fixed size."""
