"""Models that do what they are asked (微调).

Chapter: 20
"""
