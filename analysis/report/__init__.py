"""One page, and the same as PDF, of all result rows."""
