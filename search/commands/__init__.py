"""The commands of the command line: one file each, with its flags and the call that does the work."""
