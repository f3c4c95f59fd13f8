"""`fednb serve`: scores of single applicants over HTTP, at the party that holds the label."""
