"""Models that think before they answer (推理).

Chapter: 24
"""
