"""What three or more networks share."""
