"""What stages found, as typed records, and the gates that judge it."""
