"""C beside its torch reference; nobody else imports ctypes."""
