"""Create-if-absent, attempts and leases over local disk, HDFS and object stores."""
