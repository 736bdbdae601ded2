"""Benchmarks, one file each.

Chapter: app
"""
