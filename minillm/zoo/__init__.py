"""Small models that the course ships, each with its manifest and a card that says what it is."""
