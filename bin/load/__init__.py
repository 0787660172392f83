"""orlop-load: scenarios run against a store, by many clients, with honest latencies.

`scenario` says what is asked for; `steps` makes of it, by one seed, what each client does; `targets` are those to whom
it is done; `clients` do it in worker processes and `tally` what it took; `crew` leads the workers and makes a `result`
of what they tell; `report` and `compare` read results.
"""
