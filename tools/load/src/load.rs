//! Load runs.
