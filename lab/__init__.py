"""The workshop: ledger, cards, publishing, conversions, failure atlas; not installed."""
