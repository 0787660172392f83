"""orlop-load: scenarios run against a store, by many clients, with honest latencies.

`scenario` says what is asked for; `steps/` makes of it, by one seed, what each client does; `targets/` are those to
whom it is done. `leader/` leads the processes of `worker/` through a run and makes a `result` of what they tell
(`messages`, over `pipes`); `report/` and `comparison/` are functions of results.
"""
