"""The shipped study files."""
