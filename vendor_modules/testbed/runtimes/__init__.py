"""The ways to run machines on a desktop; each fulfils :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
