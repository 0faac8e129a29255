"""Where a store lies: a folder or a bucket, and the files in it."""
