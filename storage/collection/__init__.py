"""Garbage collection at the cost of the garbage: the witness forest (docs/collection.md).

kinds      what a kind of resource must say to take part
state      what is known of an object, and the entries of the queue, as they are stored
forest     those states and the queue, in one transaction
changes    what a change of records makes dirty, in the change's own transaction
owed       large records and leases, whose edges follow in steps
steps      the collector's steps: suspects, rescues, sweep
clock      expiry, and conditions that switch
rounds     which round is worked on, sealed, or waits in the bin
collector  one slice of a collection, as one transaction
mark       the full mark, which all of it must agree with
"""
