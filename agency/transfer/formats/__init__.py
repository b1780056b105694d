"""What content is in: raw files and devices, qcow2, what qemu-nbd opens, and the streams of Vendor Modules."""
