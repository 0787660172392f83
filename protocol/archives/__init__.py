"""Images as files: OCI layouts and docker archives, read into a store and written from one.

`tar` knows the container, `layout` and `docker` what stands in it, `importing` and `exporting` bring both together.
Bytes come from and go to whoever calls: nothing here opens a file.
"""
