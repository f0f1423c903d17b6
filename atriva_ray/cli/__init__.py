"""The command ``atriva``."""
