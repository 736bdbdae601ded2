"""Small models that the course ships, each with its card."""
