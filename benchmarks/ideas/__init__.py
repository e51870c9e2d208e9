"""What each idea gives, alone and in a search."""
