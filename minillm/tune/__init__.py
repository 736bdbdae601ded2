"""From a model that writes texts to one that does what it is asked (微调).

Chapter: 20
"""
