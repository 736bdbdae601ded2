"""Files from others and for others, in the formats of the field."""
