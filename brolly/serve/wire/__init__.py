"""What goes over the wire, typed: the requests and answers of each dialect. One file a group of routes."""
