"""One verb a file: what it needs of a network and a tokenizer, and its loop."""
