"""Whether what is stored fits together: read in pages, each on one consistent view (docs/operations.md).

flaw        what can be wrong, and how it is mended
references  records, their edges and instants, and what the collector knows of each object
backends    blobs and snapshots: who holds them, what stands on them, where their bytes lie
files       what lies in the store's folders, and what is mounted from them
"""
