"""What is read: corpora, packed rows, and tests of recall."""
