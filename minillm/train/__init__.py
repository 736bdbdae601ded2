"""Training (训练): from fifteen lines to a run you can kill.

Chapter: 02
"""
