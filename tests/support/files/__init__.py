"""What a process asks of the file system below one folder: written down, or made to fail."""
