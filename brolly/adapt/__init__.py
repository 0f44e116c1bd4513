"""A model put to work on what its user has: prompts that are kept, and documents that are searched."""
