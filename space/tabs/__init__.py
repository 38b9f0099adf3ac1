"""The page's tabs, a class for each."""
