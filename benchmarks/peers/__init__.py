"""What is measured, one way to run a model per file. Each runs in a program of its own."""
