"""The Vendor Module ``libvirt``: QEMU and KVM guests of a computer, or of many through libvirt's remote access."""
