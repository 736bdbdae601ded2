"""What `minillm train` runs: one file for each thing that is trained."""
