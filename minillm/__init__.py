"""minillm: a language model built from bytes, and every claim about it measured.

One letter per axis, in every public signature of the library:

==  =====================  ==  ==========================
B   batch_size             K   d_head
T   query tokens           F   d_ff
S   key tokens             V   vocab_size
D   d_model                E   experts
H   heads                  N   routed tokens
G   key/value heads        P   pairs of token and expert
==  =====================  ==  ==========================

Import path = file path: ``from minillm.text.bpe import train``. Nothing is re-exported, and
importing has no effect. ``minillm map`` prints every module in reading order.
"""

__version__ = "0.1.0"
