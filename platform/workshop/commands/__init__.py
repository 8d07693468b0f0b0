"""The commands, a file each: what it is asked, whom it asks, what it says."""
