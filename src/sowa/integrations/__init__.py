"""Bridges to other libraries, each an optional extra; importing one without its library says what to install."""
