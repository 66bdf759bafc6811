"""Checks of the installation and of the machine, for `nbt doctor`; none imports a heavy package unless it must."""
