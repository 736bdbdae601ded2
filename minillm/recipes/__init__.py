"""What `minillm train` runs, one file each."""
