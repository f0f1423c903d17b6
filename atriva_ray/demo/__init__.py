"""The demonstration: real images, a real cluster, every answer checked."""
