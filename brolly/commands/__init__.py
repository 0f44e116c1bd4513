"""What the longer commands do: each file has the flags of one and its work; `cli` imports it when it is called."""
