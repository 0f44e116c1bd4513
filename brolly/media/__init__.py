"""What people hand in and get back, to and from arrays: text now; images, audio, proteins, actions later. No torch."""
