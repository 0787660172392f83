"""Filters of lists and subscriptions: `grammar` reads them, `fields` says what each resource answers to, and
`matching` compiles both into one predicate. Source: spec metadata 7."""
