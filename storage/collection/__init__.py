"""Garbage collection at the cost of the garbage: the witness forest (docs/collection.md).

kinds      what a kind of resource must say to take part
objects    how an object of each kind goes
state      what is known of an object, and the entries of the queue, as they are stored
forest     those states, the edges and the queue, in one transaction
changes    what a change of records makes dirty, in the change's own transaction
owed       what is too much for that transaction; settling does it, a piece in each step
steps      the collector's steps: suspects, rescues, sweep
removing   a dead object goes, also one that is in the way
clock      expiry, and conditions that switch
collector  one slice of a collection, as one transaction; rounds, the seal and the bin
alive      whether an object is no more, though it is not swept
deleted    images that were deleted and may come back
rebuild    the forest of a store that has none
mark, walk the full mark and the full count, which all of it must agree with
"""
