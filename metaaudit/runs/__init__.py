"""What a run leaves: its files, how they are written and read back."""
