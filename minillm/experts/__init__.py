"""Mixtures of experts: routing, the layer, and what takes its place."""
