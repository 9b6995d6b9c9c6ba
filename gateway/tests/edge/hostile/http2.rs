//! HTTP/2 that no library would send.
