"""What is kept: the ordered key-value engine, keys and transactions, the blob store."""
