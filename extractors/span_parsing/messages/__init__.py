"""Messages, their parts and tools, as the SDKs of providers write them."""
