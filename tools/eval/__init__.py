"""What models make of rough drafts, judged by rules: ``make eval``."""
