"""Tinytown (丁点镇): a generated world, corpus and exam of the whole course.

One seed makes one town. Every generator in this part is a pure function of the seed and of a block
number, and returns its truth beside the text: what was said, and what is so.

Chapter: 02
"""
