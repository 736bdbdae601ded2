"""Optimization (优化): from a loss to the next weights.

Chapter: 02
"""
