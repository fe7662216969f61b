"""The commands of the command line: one file each, with its flags and what it does."""
