"""What people hand in and get back, to and from arrays: text, and in later issues images, audio, proteins, actions. No torch."""
