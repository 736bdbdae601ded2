"""What the notebooks stand on: set-up, predictions, checked numbers, tasks, figures."""
