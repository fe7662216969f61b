"""The study side: search, storage, export and the command line."""
